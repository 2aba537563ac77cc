package receivertest_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"go.uber.org/goleak"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTally(t *testing.T) {
	record := func(id, rest string) []byte { return []byte(`{"eventID":"` + id + `","x":` + rest + `}`) }
	for _, c := range []struct {
		name      string
		want, got []string // id/rest
		result    receivertest.Result
	}{
		{"nothing", nil, nil, receivertest.Result{}},
		{"whole", []string{"a/1", "b/2"}, []string{"b/2", "a/1"}, receivertest.Result{Written: 2, Received: 2}},
		{"twice as written", []string{"a/1", "a/1"}, []string{"a/1", "a/1"}, receivertest.Result{Written: 2, Received: 2}},
		{"lost", []string{"a/1", "b/2"}, []string{"a/1"}, receivertest.Result{Written: 2, Received: 1, Lost: 1}},
		{"one of two alike lost", []string{"a/1", "a/1"}, []string{"a/1"}, receivertest.Result{Written: 2, Received: 1, Lost: 1}},
		{"repeated", []string{"a/1"}, []string{"a/1", "a/1", "a/1"}, receivertest.Result{Written: 1, Received: 3, Repeated: 2}},
		{"altered", []string{"a/1.0", "b/2"}, []string{"a/1", "b/2"}, receivertest.Result{Written: 2, Received: 2, Altered: 1}},
		{"invented", []string{"a/1"}, []string{"a/1", "c/3"}, receivertest.Result{Written: 1, Received: 2, Altered: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tally receivertest.Tally
			for _, w := range c.want {
				id, rest, _ := strings.Cut(w, "/")
				tally.Expect(record(id, rest), id)
			}
			firsts := 0
			for _, g := range c.got {
				id, rest, _ := strings.Cut(g, "/")
				if tally.Take(record(id, rest)) {
					firsts++
				}
			}
			if want := c.result.Received - c.result.Repeated - c.result.Altered; firsts != want || tally.Received() != len(c.got) {
				t.Errorf("%d records taken for the first time, wanted %d", firsts, want)
			}
			if d := cmp.Diff(c.result, tally.Result()); d != "" {
				t.Error(d)
			}
			whole := c.name == "nothing" || c.name == "whole" || c.name == "twice as written"
			if tally.Result().Whole() != whole {
				t.Errorf("Whole is %t", !whole)
			}
		})
	}
}

// taker collects what a receiver hands on.
type taker struct {
	mu  sync.Mutex
	all []string
	c   chan struct{}
}

func newTaker() *taker { return &taker{c: make(chan struct{}, 1000)} }

func (k *taker) take(raw []byte) {
	k.mu.Lock()
	k.all = append(k.all, string(raw))
	k.mu.Unlock()
	k.c <- struct{}{}
}

func (k *taker) wait(t *testing.T, n int) []string {
	t.Helper()
	for range n {
		select {
		case <-k.c:
		case <-time.After(10 * time.Second):
			t.Fatalf("only %q came", k.all)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.all...)
}

func post(t *testing.T, client *http.Client, url, kind string, gz bool, body string) (int, error) {
	t.Helper()
	var b bytes.Buffer
	if gz {
		zw := gzip.NewWriter(&b)
		_, _ = io.WriteString(zw, body)
		_ = zw.Close()
	} else {
		b.WriteString(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, &b)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if gz {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Body.Close()
}

func TestHTTP(t *testing.T) {
	k := newTaker()
	h, err := receivertest.NewHTTP(receivertest.HTTPConfig{
		Take: k.take,
		Answer: func(r *receivertest.Request) receivertest.Answer {
			switch r.Path {
			case "/refuse":
				return receivertest.Answer{Status: 503, Header: http.Header{"Retry-After": {"7"}}, Body: "busy"}
			case "/lose":
				return receivertest.Answer{Lose: true}
			case "/break":
				return receivertest.Answer{Status: 500, Lose: true}
			}
			return receivertest.Answer{}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	const nd, js = "application/x-ndjson", "application/json"
	for _, c := range []struct {
		name, path, kind string
		gz               bool
		body             string
		status           int // 0 = the connection breaks
		taken            []string
	}{
		{"ndjson", "/", nd, false, "{\"a\":0.0}\n{\"b\":1}\n", 200, []string{`{"a":0.0}`, `{"b":1}`}},
		{"ndjson, gzip", "/", nd, true, "{\"a\":\"\\u003d\"}\n", 200, []string{`{"a":"\u003d"}`}},
		{"array", "/", js, true, `[{"a":0.0},{"b":[1,2]}]`, 200, []string{`{"a":0.0}`, `{"b":[1,2]}`}},
		{"refused", "/refuse", nd, false, "{}\n", 503, nil},
		{"answer lost", "/lose", nd, false, "{\"lost\":1}\n", 0, []string{`{"lost":1}`}},
		{"broken", "/break", nd, false, "{}\n", 0, nil},
		{"cut line", "/", nd, false, "{}\n{", 400, nil},
		{"no array", "/", js, false, "{}", 400, nil},
		{"other type", "/", "text/plain", false, "{}\n", 400, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := h.Records()
			status, err := post(t, client, h.URL()+c.path, c.kind, c.gz, c.body)
			if status != c.status || (err != nil) != (c.status == 0) {
				t.Fatalf("status %d, %v", status, err)
			}
			all := k.wait(t, len(c.taken))
			if d := cmp.Diff(c.taken, all[len(all)-len(c.taken):], cmp.Transformer("nil", func(s []string) string { return strings.Join(s, "\n") })); d != "" {
				t.Error(d)
			}
			if got := h.Records() - before; got != len(c.taken) {
				t.Errorf("%d records counted", got)
			}
		})
	}
}

func TestHTTPDelayEndsWithClose(t *testing.T) {
	began := make(chan struct{})
	h, err := receivertest.NewHTTP(receivertest.HTTPConfig{Answer: func(*receivertest.Request) receivertest.Answer {
		close(began)
		return receivertest.Answer{Delay: time.Hour}
	}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		_, err := post(t, client, h.URL(), "application/x-ndjson", false, "{}\n")
		done <- err
	}()
	<-began
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil || h.Records() != 0 {
		t.Errorf("answered %v, %d records taken", err, h.Records())
	}
}

func TestTLS(t *testing.T) {
	ca, err := receivertest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	k := newTaker()
	h, err := receivertest.NewHTTP(receivertest.HTTPConfig{CA: ca, RequireClient: true, Take: k.take})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s, err := receivertest.NewSyslog(receivertest.SyslogConfig{CA: ca, RequireClient: true, Take: k.take})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	certFile, keyFile, err := ca.IssueFiles(t.TempDir(), "client", "client.example.com")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range []bool{true, false} {
		tc := &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12}
		if known {
			tc.Certificates = []tls.Certificate{cert}
		}
		tr := &http.Transport{TLSClientConfig: tc.Clone(), DisableKeepAlives: true}
		_, err := post(t, &http.Client{Transport: tr}, h.URL(), "application/x-ndjson", false, "{\"n\":1}\n")
		if (err == nil) != known {
			t.Errorf("https, known client %t: %v", known, err)
		}
		c, err := tls.Dial("tcp", s.Addr(), tc)
		if err == nil {
			_, _ = io.WriteString(c, "5 hello")
			_ = c.CloseWrite()
			_, err = io.Copy(io.Discard, c) // with TLS 1.3 a refusal shows at the first read
			_ = c.Close()
		}
		if (err == nil) != known {
			t.Errorf("syslog, known client %t: %v", known, err)
		}
	}
	if got := k.wait(t, 2); len(got) != 2 {
		t.Errorf("took %q", got)
	}
}

func TestSyslogFraming(t *testing.T) {
	k := newTaker()
	s, err := receivertest.NewSyslog(receivertest.SyslogConfig{Take: k.take, Break: func(n int) bool { return n == 5 }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "5 he\nlo<1>a line\n3 abc4 defg"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"he\nlo", "<1>a line", "abc", "defg"}, k.wait(t, 4)); d != "" {
		t.Error(d)
	}
	_, _ = io.WriteString(c, "1 x")
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the fifth message did not break the connection")
	}
	if s.Messages() != 4 || s.Connections() != 1 || len(s.Problems()) != 0 {
		t.Errorf("%d messages, %d connections, %v", s.Messages(), s.Connections(), s.Problems())
	}
}

func TestSyslogBadFrames(t *testing.T) {
	for _, frame := range []string{"0 x", "12", "12 short", "123456789 x", "5x hello", "99999999 x", "<1>no line break"} {
		s, err := receivertest.NewSyslog(receivertest.SyslogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, frame)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.ReadAll(c) // until the receiver has closed
		_ = c.Close()
		problems := s.Problems()
		_ = s.Close()
		if len(problems) != 1 || s.Messages() != 0 {
			t.Errorf("%q: %d messages, problems %v", frame, s.Messages(), problems)
		}
	}
}

func TestSyslogUDP(t *testing.T) {
	k := newTaker()
	s, err := receivertest.NewSyslog(receivertest.SyslogConfig{Network: "udp", Take: k.take})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := net.Dial("udp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	long := strings.Repeat("x", 65_507)
	for _, m := range []string{"<1>one", long} {
		if _, err := io.WriteString(c, m); err != nil {
			t.Fatal(err)
		}
		if all := k.wait(t, 1); all[len(all)-1] != m {
			t.Errorf("%.40q came as %.40q", m, all[len(all)-1])
		}
	}
}

// TestSyslogPause fills the kernel's buffers: nothing is taken until Resume.
func TestSyslogPause(t *testing.T) {
	k := newTaker()
	s, err := receivertest.NewSyslog(receivertest.SyslogConfig{Take: k.take})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Pause()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	message := "<1>" + strings.Repeat("x", 1<<20-4) + "\n"
	sent := 0
	for range 64 {
		n, err := io.WriteString(c, message)
		if sent += n; err != nil {
			break
		}
	}
	if sent == 64<<20 || s.Messages() != 0 {
		t.Errorf("%d bytes went in while paused, %d messages taken", sent, s.Messages())
	}
	s.Resume()
	k.wait(t, sent>>20)
	s.Reset()
}

func TestParseRFC5424(t *testing.T) {
	at := time.Date(2026, 11, 3, 22, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		raw  string
		want *receivertest.Message // nil = refused
	}{
		{`<134>1 2026-11-03T22:04:05Z host app - CloudTrail - {"a":1}`,
			&receivertest.Message{Priority: 134, Time: at, Hostname: "host", AppName: "app", MessageID: "CloudTrail", Text: []byte(`{"a":1}`)}},
		{`<0>1 - - - - - -`, &receivertest.Message{}},
		{`<0>1 - - - - - - `, &receivertest.Message{Text: []byte{}}},
		{`<191>1 2026-11-03T23:04:05.123456+01:00 h a p m [x@32473 k="a\"b\\c\]d" l=""][y] text`,
			&receivertest.Message{
				Priority: 191, Time: at.Add(123456 * time.Microsecond), Hostname: "h", AppName: "a", ProcID: "p", MessageID: "m",
				Data: []receivertest.Element{
					{ID: "x@32473", Params: []receivertest.Param{{Name: "k", Value: `a"b\c]d`}, {Name: "l"}}}, {ID: "y"},
				}, Text: []byte("text"),
			}},
		{`<134>2 - - - - - - x`, nil},
		{`<192>1 - - - - - - x`, nil},
		{`<01>1 - - - - - - x`, nil},
		{`<134>1 2026-11-03t22:04:05z - - - - - x`, nil},
		{`<134>1 2026-11-03T22:04:05.1234567Z - - - - - x`, nil},
		{`<134>1 2026-11-03T22:04:05,5Z - - - - - x`, nil},
		{`<134>1 2026-11-03T22:04:05 - - - - - x`, nil},
		{`<134>1 - h` + "\x01" + ` - - - - x`, nil},
		{`<134>1 - ` + strings.Repeat("h", 256) + ` - - - - x`, nil},
		{`<134>1 - - - - ` + strings.Repeat("m", 33) + ` - x`, nil},
		{`<134>1 - - - - - [a k="]"] x`, nil},
		{`<134>1 - - - - - [a k="x] x`, nil},
		{`<134>1 - - - - - [a][a] x`, nil},
		{`<134>1 - - - - - [a k="` + "\xff" + `"] x`, nil},
		{`<134>1 - - - - - x`, nil},
		{`<134>1 - - - - - -x`, nil},
		{`<134>1 - - - - - - ` + "\xef\xbb\xbf\xff", nil},
		{``, nil},
	} {
		got, err := receivertest.ParseRFC5424([]byte(c.raw))
		if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); d != "" {
			t.Errorf("%.80q: %v\n%s", c.raw, err, d)
		}
		if (err == nil) != (c.want != nil) {
			t.Errorf("%.80q: %v", c.raw, err)
		}
	}
}

func FuzzParseRFC5424(f *testing.F) {
	f.Add([]byte(`<191>1 2026-11-03T23:04:05.123456+01:00 h a p m [x@32473 k="a\"b\\c\]d" l=""][y] text`))
	f.Add([]byte(`<0>1 - - - - - -`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := receivertest.ParseRFC5424(raw)
		if err == nil && !bytes.HasSuffix(raw, m.Text) {
			t.Error("Text is not the end of the message")
		}
		if err == nil && !bytes.HasPrefix(raw, fmt.Appendf(nil, "<%d>1 ", m.Priority)) {
			t.Errorf("priority %d", m.Priority)
		}
	})
}
