package page_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/control/page"
	"github.com/trailpoll/trailpoll/agent/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is an agent that is well: what a test wants otherwise it changes.
type sample struct {
	snapshot *control.Snapshot
	coverage *control.Coverage
	parked   *control.Parked
	err      error
	asked    int
}

func newSample() *sample {
	return &sample{
		snapshot: &control.Snapshot{
			Status: &control.Status{
				Agent: control.Process{Running: true},
				Status: agent.Status{
					Sources: []agent.SourceStatus{{Name: "trail", Bucket: "logs", State: agent.StateOK}},
					Streams: []agent.StreamStatus{{Source: "trail", Account: "111122223333", Region: "eu-central-1", LogType: "CloudTrail"}},
					Outputs: []agent.OutputStatus{{Name: "siem", State: agent.StateOK, Records: 1234567}},
				},
				Jobs: []byte(`[]`),
			},
			Parked: &agent.Tally{Reasons: map[agent.ParkedGroup]int{}},
		},
		coverage: coverage(30, 1),
		parked:   &control.Parked{},
	}
}

// coverage has all days settled, of so many rows.
func coverage(days, rows int) *control.Coverage {
	c := new(control.Coverage)
	for i := range days {
		c.Days = append(c.Days, time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC).AddDate(0, 0, i-days+1).Format(time.DateOnly))
	}
	for n := range rows {
		r := agent.CoverageRow{Source: "trail", Account: fmt.Sprintf("%012d", n), Region: "eu-central-1"}
		for range days {
			r.Cells = append(r.Cells, agent.CoverageCell{State: agent.DaySettled, Objects: 12})
		}
		c.Rows = append(c.Rows, r)
	}
	return c
}

func (s *sample) handler(t *testing.T) *page.Page {
	t.Helper()
	p, err := page.New(page.Config{
		Snapshot: func() (*control.Snapshot, error) { s.asked++; return s.snapshot, s.err },
		Coverage: func(int) (*control.Coverage, error) { return s.coverage, s.err },
		Parked:   func(int) (*control.Parked, error) { return s.parked, s.err },
		History:  new(page.History), Version: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ask(p *page.Page, path string) *httptest.ResponseRecorder {
	rw := httptest.NewRecorder()
	p.ServeHTTP(rw, httptest.NewRequest(http.MethodGet, path, nil))
	return rw
}

func (s *sample) html(t *testing.T, path string) string {
	t.Helper()
	return ask(s.handler(t), path).Body.String()
}

func TestVerdict(t *testing.T) {
	at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	for _, x := range []struct {
		name, level string
		change      func(*sample)
		want        string
	}{
		{"well", "ok", func(*sample) {}, "All is well"},
		{"held", "bad", func(s *sample) {
			s.snapshot.Outputs[0].State, s.snapshot.Outputs[0].Since, s.snapshot.Outputs[0].Error = agent.StateHeld, &at, "401"
		}, "Output siem is held since 2026-11-20 09:00:00 UTC: 401"},
		{"retrying", "warn", func(s *sample) {
			s.snapshot.Outputs[0].State, s.snapshot.Outputs[0].Error = agent.StateRetrying, "503"
		}, "Output siem fails and is tried again: 503"},
		{"source", "bad", func(s *sample) {
			s.snapshot.Sources[0].State, s.snapshot.Sources[0].Error = agent.StateRetrying, "denied"
		}, "Source trail can&#39;t be listed: denied"},
		{"trouble", "warn", func(s *sample) {
			s.snapshot.Sources[0].Troubles = []agent.Trouble{{What: "discovery", Error: "denied", Since: at}}
		}, "Source trail: discovery since"},
		{"nothing yet", "warn", func(s *sample) { s.snapshot.Streams = nil }, "No stream is known yet"},
		{"parked", "warn", func(s *sample) {
			s.snapshot.Parked.Reasons[agent.ParkedGroup{Output: "siem", Reason: record.Denied}] = 1
		}, "1 object or record is parked"},
		{"a gap", "warn", func(s *sample) {
			for _, i := range []int{3, 4, 5, 20} {
				s.coverage.Rows[0].Cells[i] = agent.CoverageCell{State: agent.DayMissing, Pending: 2}
			}
		}, "Missing: 000000000000 · eu-central-1, 2026-11-11, 2026-10-25 to 2026-10-27 (3 days); 8 objects pending"},
		{"two things, the worst counts", "bad", func(s *sample) {
			s.snapshot.Outputs[0].State = agent.StateHeld
			s.coverage.Rows[0].Cells[0].State = agent.DayMissing
		}, "Something is wrong"},
	} {
		s := newSample()
		x.change(s)
		text := s.html(t, "/")
		if !strings.Contains(text, `data-level="`+x.level+`"`) || !strings.Contains(text, x.want) {
			t.Errorf("%s: not %s, or no %q in %s", x.name, x.level, x.want, text)
		}
	}
}

// What can't be asked is said; the page never looks well then.
func TestNoAgent(t *testing.T) {
	s := newSample()
	s.err = errors.New("between two configurations")
	rw := ask(s.handler(t), "/")
	if rw.Code != http.StatusServiceUnavailable || !strings.Contains(rw.Body.String(), "between two configurations") || !strings.Contains(rw.Body.String(), "Something is wrong") {
		t.Errorf("%d %s", rw.Code, rw.Body)
	}
}

func TestCoverageAndParkedUnknown(t *testing.T) {
	s := newSample()
	p, err := page.New(page.Config{
		Snapshot: func() (*control.Snapshot, error) { return s.snapshot, nil },
		Coverage: func(int) (*control.Coverage, error) { return nil, errors.New("damaged") },
		Parked:   func(int) (*control.Parked, error) { return nil, errors.New("damaged, too") },
		History:  new(page.History),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.snapshot.Parked.Reasons[agent.ParkedGroup{Reason: record.Denied}] = 1
	text := ask(p, "/").Body.String()
	if !strings.Contains(text, "Coverage can&#39;t be read from the checkpoint: damaged") || !strings.Contains(text, "damaged, too") {
		t.Error(text)
	}
}

// Nothing on the page asks for more than the policy lets it, and what the page
// loads is there.
func TestPolicy(t *testing.T) {
	p := newSample().handler(t)
	rw := ask(p, "/?days=90&rows=all")
	policy := rw.Header().Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("the policy is %s", policy)
	}
	text := rw.Body.String()
	for _, not := range []string{"<style", " style=", "javascript:", "http-equiv", "<form"} {
		if strings.Contains(text, not) {
			t.Errorf("there is %s", not)
		}
	}
	if m := regexp.MustCompile(`<script[^>]*>[^<]|\son[a-z]+=|(?:src|href)="(?:[a-z]+:)?//`).FindString(text); m != "" {
		t.Errorf("there is %s", m)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"?#]+)"`).FindAllStringSubmatch(text, -1) {
		if got := ask(p, "/"+m[1]); got.Code != http.StatusOK || got.Header().Get("Content-Type") == "" {
			t.Errorf("%s: %d", m[1], got.Code)
		}
	}
	for _, path := range []string{"/nothing", "/page.html", "/assets/page.css", "/../page.go"} {
		if got := ask(p, path); got.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
}

func TestAssetsAreAskedForAgain(t *testing.T) {
	p := newSample().handler(t)
	tag := ask(p, "/page.css").Header().Get("ETag")
	r := httptest.NewRequest(http.MethodGet, "/page.css", nil)
	r.Header.Set("If-None-Match", tag)
	rw := httptest.NewRecorder()
	p.ServeHTTP(rw, r)
	if tag == "" || rw.Code != http.StatusNotModified {
		t.Errorf("%q: %d", tag, rw.Code)
	}
}

// No name or error of elsewhere makes markup, or turns the writing round.
func TestInvariant11_NothingBreaksOutOfThePage(t *testing.T) {
	const evil = "\"'><script>alert(1)</script>\u202e\x07\n"
	s := newSample()
	s.snapshot.Sources[0] = agent.SourceStatus{Name: evil, Bucket: evil, Prefix: evil, State: evil, Error: evil}
	s.snapshot.Streams[0] = agent.StreamStatus{Source: evil, Account: evil, AccountName: evil, Organization: evil, Region: evil, LogType: evil}
	s.snapshot.Outputs[0] = agent.OutputStatus{Name: evil, State: evil, Error: evil}
	s.snapshot.Parked.Reasons[agent.ParkedGroup{Output: evil, Reason: record.Reason(evil)}] = 1
	s.snapshot.Jobs = []byte(`[{"id":1,"state":"running","held_outputs":["<script>\u202e"]}]`)
	s.parked.Parked = []control.ParkedEntry{{ID: evil, Key: evil, Error: evil, Output: evil, Reason: evil}}
	r := &s.coverage.Rows[0]
	r.Source, r.Account, r.AccountName, r.Region = evil, evil, evil, evil
	r.Cells[3].State = agent.DayMissing
	r.Cells[4].State = evil
	text := s.html(t, "/")
	if n := strings.Count(text, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	if strings.ContainsAny(text, "\x07") {
		t.Error("a control character is shown")
	}
}

// Hundreds of rows stay readable, and the worst is not among those left out.
func TestManyRows(t *testing.T) {
	s := newSample()
	s.coverage = coverage(30, 900)
	s.coverage.Rows[777].Cells[12].State = agent.DayMissing
	for range 900 {
		s.snapshot.Streams = append(s.snapshot.Streams, s.snapshot.Streams[0])
	}
	text := s.html(t, "/")
	if n := strings.Count(text, `<td class="cell `); n != 26*30 {
		t.Errorf("%d cells", n)
	}
	if first := strings.Index(text, `<th scope="row">000000000777`); first < 0 || first > strings.Index(text, `<th scope="row">000000000000`) {
		t.Error("the worst is not first")
	}
	for _, want := range []string{"missing in 1\"", "875 more", "rows=all", "891 more"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	s.coverage = coverage(365, 900)
	if text = s.html(t, "/?days=365&rows=all"); strings.Count(text, `<td class="cell `) > 31_000 || len(text) > 8<<20 {
		t.Errorf("%d bytes", len(text))
	}
}

// Days that nobody offers are 30, and many browsers ask the agent once.
func TestOptions(t *testing.T) {
	s := newSample()
	p := s.handler(t)
	for _, path := range []string{"/", "/?days=7000", "/?days=x&rows=%00", "/?other"} {
		if rw := ask(p, path); rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), `<a href="?days=30" aria-current="true">`) {
			t.Errorf("%s: %d %s", path, rw.Code, rw.Body)
		}
	}
	if s.asked != 1 {
		t.Errorf("the agent was asked %d times", s.asked)
	}
}

func TestJobs(t *testing.T) {
	s := newSample()
	s.snapshot.Jobs = []byte(`[{"id":1,"state":"done","from":"2026-11-01T00:00:00Z","to":"2026-11-02T00:00:00Z","share":1},
		{"id":2,"state":"running","from":"2026-11-03T00:00:00Z","to":"2026-11-04T00:00:00Z","share":0.42,"objects":1200,"left_seconds":90,"held_outputs":["siem"]}]`)
	text := s.html(t, "/")
	live, over := strings.Index(text, `<th scope="row">2`), strings.Index(text, `<th scope="row">1`)
	if live < 0 || over < live {
		t.Error("what goes on is not first")
	}
	for _, want := range []string{`<progress value="42" max="100" aria-label="Re-sync 2">`, "1 min 30 s", "1\u202f200", "running, waits for siem"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	s.snapshot.Jobs = []byte(`{}`)
	if !strings.Contains(s.html(t, "/"), "Not known.") {
		t.Error("jobs of another version")
	}
}

// The last day is counted across a change of configuration, when the agent's
// counts begin anew.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSample()
		h := new(page.History)
		var count atomic.Int64
		snapshot := func() (*control.Snapshot, error) {
			now := newSample().snapshot
			now.Outputs[0].Records = count.Load()
			return now, nil
		}
		p, err := page.New(page.Config{
			Snapshot: snapshot, History: h,
			Coverage: func(int) (*control.Coverage, error) { return s.coverage, nil },
			Parked:   func(int) (*control.Parked, error) { return s.parked, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		agentOf := func(records int64, lasts time.Duration) {
			count.Store(0)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); h.Run(ctx, snapshot) }()
			synctest.Wait()
			count.Store(records)
			time.Sleep(lasts)
			cancel()
			<-done
		}
		wants := func(want string) {
			t.Helper()
			time.Sleep(time.Minute)
			if text := ask(p, "/").Body.String(); !strings.Contains(text, want) {
				t.Errorf("there is no %q in %s", want, text)
			}
		}
		agentOf(1000, time.Hour)
		agentOf(5000, time.Hour)
		wants("6\u202f000 records since 00:00 UTC; most in the half hour from 01:00 UTC: 5\u202f000, 2.8 a second")
		agentOf(7, 22*time.Hour)
		wants("5\u202f007 records in the last 24 hours") // the first half hour is past
		agentOf(8, 2*time.Hour)
		wants("8 records in the last 24 hours")
	})
}
