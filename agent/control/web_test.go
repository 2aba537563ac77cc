package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/record"
)

// sample is a snapshot with something in each of its parts.
func sample() *control.Snapshot {
	lag := int64(90)
	since := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	stream := agent.StreamStatus{Source: "trail", Account: "111122223333", Region: "eu-central-1", LogType: "CloudTrail"}
	stream.Lag, stream.Behind, stream.Pending = &lag, 42, 3
	took := agent.Latency{Bounds: []float64{0.1, 1}, Counts: []uint64{5, 2, 1}, Sum: 7.5}
	id := agent.SourceID("logs", "")
	return &control.Snapshot{
		Status: &control.Status{
			Schema: control.Schema, At: since, Agent: control.Process{Running: true, PID: 7},
			Status: agent.Status{
				Sources: []agent.SourceStatus{{Name: "trail", Bucket: "logs", State: agent.StateOK, Lists: 11, Gets: 12, Bytes: 13, Records: 14, Objects: 15}},
				Streams: []agent.StreamStatus{stream},
				Outputs: []agent.OutputStatus{{Name: "siem", State: agent.StateHeld, Error: "refused", Since: &since, Records: 99, Latency: took}},
				Commits: took,
			},
			Jobs: []byte(`[{"id":1,"state":"running"},{"id":2,"state":"done"}]`), Checkpoint: control.Checkpoint{Size: 65536},
		},
		Parked: &agent.Tally{Reasons: map[agent.ParkedGroup]int{{Source: id, Output: "siem", Reason: record.Denied}: 4}},
	}
}

func webConfig(addr, token string) control.WebConfig {
	return control.WebConfig{
		Addr: addr, Token: token, Build: control.Build{Version: "1.2.3", Commit: "abc", Go: "go1.26"},
		Snapshot: func() (*control.Snapshot, error) { return sample(), nil },
		Coverage: func(days int) (*control.Coverage, error) {
			return &control.Coverage{Schema: control.Schema, Coverage: agent.Coverage{Days: make([]string, days)}}, nil
		},
		Healthy: func() error { return nil }, Ready: func() error { return nil }, Log: zerolog.Nop(),
	}
}

const local, wide = "127.0.0.1:9810", "0.0.0.0:9810"

func TestWebWhoSeesWhat(t *testing.T) {
	basic := func(r *http.Request) { r.SetBasicAuth("anyone", "hunter2") }
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer hunter2") }
	wrong := func(r *http.Request) { r.Header.Set("Authorization", "Bearer hunter") }
	head := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	both := func(fs ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, f := range fs {
				f(r)
			}
		}
	}
	link := both(head("Sec-Fetch-Site", "cross-site"), head("Sec-Fetch-Mode", "navigate"), head("Sec-Fetch-Dest", "document"))
	frame := both(head("Sec-Fetch-Site", "cross-site"), head("Sec-Fetch-Mode", "navigate"), head("Sec-Fetch-Dest", "iframe"))
	for _, x := range []struct {
		name, addr, token, method, path, host string
		with                                  func(*http.Request)
		want                                  int
	}{
		{"loopback serves all", local, "", "GET", "/v1/status", "127.0.0.1:9810", nil, 200},
		{"loopback serves all", local, "", "GET", "/", "localhost:9810", nil, 200},
		{"loopback serves all", local, "", "GET", "/metrics", "LOCALHOST", nil, 200},
		{"loopback serves all", "[::1]:9810", "", "GET", "/v1/coverage", "[::1]:9810", nil, 200},
		{"loopback serves all", "localhost:9810", "", "GET", "/healthz", "127.0.0.7", nil, 200},
		{"HEAD", local, "", "HEAD", "/v1/status", "localhost", nil, 200},
		{"not there", local, "", "GET", "/nothing", "localhost", nil, 404},

		{"rebound name", local, "", "GET", "/v1/status", "evil.example:9810", nil, 403},
		{"rebound name", local, "", "GET", "/", "evil.example", nil, 403},
		{"rebound name", local, "", "GET", "/metrics", "evil.example:9810", nil, 403},
		{"rebound name", local, "", "GET", "/healthz", "localhost.evil.example", nil, 403},
		{"rebound name", local, "", "GET", "/v1/status", "127.0.0.1.evil.example", nil, 403},
		{"no name", local, "", "GET", "/v1/status", "", nil, 403},
		{"rebound name, no token", local, "hunter2", "GET", "/metrics", "evil.example", nil, 403},
		{"proxy's name, token", local, "hunter2", "GET", "/v1/status", "status.example.com", bearer, 200},

		{"cross-site", local, "", "GET", "/v1/status", "localhost:9810", head("Sec-Fetch-Site", "cross-site"), 403},
		{"same-site", local, "", "GET", "/v1/status", "localhost:9810", head("Sec-Fetch-Site", "same-site"), 403},
		{"cross-site metrics", wide, "", "GET", "/metrics", "h:9810", head("Sec-Fetch-Site", "cross-site"), 403},
		{"cross-site with token", wide, "hunter2", "GET", "/v1/status", "h:9810", both(basic, head("Sec-Fetch-Site", "cross-site")), 403},
		{"same-origin", local, "", "GET", "/v1/status", "localhost:9810", head("Sec-Fetch-Site", "same-origin"), 200},
		{"typed in", local, "", "GET", "/", "localhost:9810", head("Sec-Fetch-Site", "none"), 200},
		{"link from elsewhere", local, "", "GET", "/", "localhost:9810", link, 200},
		{"frame elsewhere", local, "", "GET", "/", "localhost:9810", frame, 403},
		{"origin elsewhere", local, "", "GET", "/v1/status", "localhost:9810", head("Origin", "https://evil.example"), 403},
		{"origin of a file", local, "", "GET", "/v1/status", "localhost:9810", head("Origin", "null"), 403},
		{"own origin", local, "", "GET", "/v1/status", "localhost:9810", head("Origin", "http://localhost:9810"), 200},

		{"elsewhere", wide, "", "GET", "/v1/status", "h:9810", nil, 403},
		{"elsewhere", wide, "", "GET", "/", "h:9810", nil, 403},
		{"elsewhere", "collector.example.com:9810", "", "GET", "/v1/coverage", "collector.example.com", nil, 403},
		{"elsewhere", wide, "", "GET", "/metrics", "h:9810", nil, 200},
		{"elsewhere", "[::]:9810", "", "GET", "/healthz", "h:9810", nil, 200},
		{"elsewhere", wide, "", "GET", "/readyz", "h:9810", nil, 200},
		{"elsewhere, no token there", wide, "", "GET", "/v1/status", "h:9810", both(head("Authorization", "Bearer ")), 403},

		{"no token", wide, "hunter2", "GET", "/v1/status", "h:9810", nil, 401},
		{"no token on loopback", local, "hunter2", "GET", "/v1/status", "localhost", nil, 401},
		{"wrong token", wide, "hunter2", "GET", "/v1/status", "h:9810", wrong, 401},
		{"bearer", wide, "hunter2", "GET", "/v1/status", "h:9810", bearer, 200},
		{"basic", wide, "hunter2", "GET", "/", "h:9810", basic, 200},
		{"metrics need none", wide, "hunter2", "GET", "/metrics", "h:9810", nil, 200},

		{"nothing can be changed", local, "", "POST", "/v1/status", "localhost", nil, 405},
		{"nothing can be changed", local, "", "DELETE", "/v1/parked", "localhost", nil, 405},
		{"the socket's orders are not here", local, "", "GET", "/v1/parked/retry", "localhost", nil, 404},
		{"too many days", local, "", "GET", "/v1/coverage?days=401", "localhost", nil, 400},
		{"no days", local, "", "GET", "/v1/coverage?days=x", "localhost", nil, 400},
	} {
		r := httptest.NewRequest(x.method, "http://placeholder"+x.path, nil)
		r.Host = x.host
		if x.with != nil {
			x.with(r)
		}
		rw := httptest.NewRecorder()
		control.NewWeb(webConfig(x.addr, x.token)).ServeHTTP(rw, r)
		if rw.Code != x.want {
			t.Errorf("%s: %s %s with Host %q at %s: %d, want %d: %s", x.name, x.method, x.path, x.host, x.addr, rw.Code, x.want, rw.Body)
		}
		if strings.Contains(rw.Body.String(), "hunter2") {
			t.Errorf("%s: the token is told", x.name)
		}
		if rw.Code == 401 && rw.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", x.name)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
			if got := rw.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q", x.name, name, got)
			}
		}
	}
}

func TestWebStatusIsWhatTheSocketSays(t *testing.T) {
	r := httptest.NewRequest("GET", "http://localhost/v1/status", nil)
	rw := httptest.NewRecorder()
	control.NewWeb(webConfig(local, "")).ServeHTTP(rw, r)
	want, err := json.Marshal(sample().Status)
	if err != nil || rw.Body.String() != string(want)+"\n" {
		t.Errorf("got %s, want %s, %v", rw.Body, want, err)
	}
}

// The page is behind the same doors.
func TestWebPage(t *testing.T) {
	cfg := webConfig(local, "")
	cfg.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("the page")) })
	w := control.NewWeb(cfg)
	for host, want := range map[string]string{"localhost": "the page", "evil.example": "this machine only"} {
		r := httptest.NewRequest("GET", "http://"+host+"/", nil)
		rw := httptest.NewRecorder()
		w.ServeHTTP(rw, r)
		if !strings.Contains(rw.Body.String(), want) {
			t.Errorf("%s: %s", host, rw.Body)
		}
	}
}

func TestWebHealth(t *testing.T) {
	cfg := webConfig(local, "")
	cfg.Healthy = func() error { return errors.New("a secret reason") }
	cfg.Ready = cfg.Healthy
	cfg.Snapshot = func() (*control.Snapshot, error) { return nil, errors.New("a secret reason") }
	w := control.NewWeb(cfg)
	for _, path := range []string{"/healthz", "/readyz"} {
		rw := httptest.NewRecorder()
		w.ServeHTTP(rw, httptest.NewRequest("GET", "http://localhost"+path, nil))
		if rw.Code != http.StatusServiceUnavailable || rw.Body.String() != "no\n" {
			t.Errorf("%s: %d %s", path, rw.Code, rw.Body)
		}
	}
	// Metrics are there all the same, and say so.
	rw := httptest.NewRecorder()
	w.ServeHTTP(rw, httptest.NewRequest("GET", "http://localhost/metrics", nil))
	if rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), "\ntrailpoll_up 0\n") {
		t.Errorf("%d %s", rw.Code, rw.Body)
	}
}

func TestMetrics(t *testing.T) {
	rw := httptest.NewRecorder()
	control.NewWeb(webConfig(wide, "")).ServeHTTP(rw, httptest.NewRequest("GET", "http://h/metrics", nil))
	text := rw.Body.String()
	for _, want := range []string{
		`trailpoll_build_info{commit="abc",goversion="go1.26",version="1.2.3"} 1`,
		`trailpoll_up 1`,
		`trailpoll_source_lists_total{source="trail"} 11`,
		`trailpoll_source_gets_total{source="trail"} 12`,
		`trailpoll_source_received_bytes_total{source="trail"} 13`,
		`trailpoll_source_records_total{source="trail"} 14`,
		`trailpoll_source_objects_settled_total{source="trail"} 15`,
		`trailpoll_source_pending_objects{source="trail"} 3`,
		`trailpoll_output_records_total{output="siem"} 99`,
		`trailpoll_output_state{output="siem",state="held"} 1`,
		`trailpoll_output_state{output="siem",state="ok"} 0`,
		`trailpoll_output_send_duration_seconds_bucket{output="siem",le="0.1"} 5`,
		`trailpoll_output_send_duration_seconds_bucket{output="siem",le="1"} 7`,
		`trailpoll_output_send_duration_seconds_bucket{output="siem",le="+Inf"} 8`,
		`trailpoll_output_send_duration_seconds_sum{output="siem"} 7.5`,
		`trailpoll_stream_behind_seconds{account="111122223333",log_type="CloudTrail",organization="",region="eu-central-1",source="trail"} 42`,
		`trailpoll_stream_lag_seconds{account="111122223333",log_type="CloudTrail",organization="",region="eu-central-1",source="trail"} 90`,
		`trailpoll_parked{output="siem",reason="denied",source="trail"} 4`,
		`trailpoll_parked{output="siem",reason="corrupt",source="trail"} 0`,
		`trailpoll_checkpoint_size_bytes 65536`,
		`trailpoll_checkpoint_commit_duration_seconds_count 8`,
		`trailpoll_resyncs{state="running"} 1`,
		`go_goroutines `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
}

// A thousand accounts don't make thousands of series, and no name breaks out.
func TestMetricsAreBounded(t *testing.T) {
	cfg := webConfig(wide, "")
	cfg.Snapshot = func() (*control.Snapshot, error) {
		s := sample()
		s.Streams = make([]agent.StreamStatus, 5000)
		for i := range s.Streams {
			s.Streams[i] = agent.StreamStatus{Source: "trail", Account: "a\"\n" + time.Duration(i).String(), Region: "r\xff"}
		}
		return s, nil
	}
	rw := httptest.NewRecorder()
	control.NewWeb(cfg).ServeHTTP(rw, httptest.NewRequest("GET", "http://h/metrics", nil))
	if n := strings.Count(rw.Body.String(), "\ntrailpoll_stream_behind_seconds{"); rw.Code != 200 || n != 50 {
		t.Errorf("%d, %d series", rw.Code, n)
	}
	for line := range strings.Lines(rw.Body.String()) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "trailpoll_") && !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") {
			t.Errorf("a line of its own: %q", line)
		}
	}
}

// A port in use is said, does not stop the agent, and is tried again.
func TestWebPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := new(lines)
	cfg := webConfig(l.Addr().String(), "")
	cfg.Log = zerolog.New(log)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	log.on("not served", cancel)
	go func() { defer close(done); control.NewWeb(cfg).Run(ctx) }()
	<-done
	if text := log.String(); !strings.Contains(text, "bind: ") || !strings.Contains(text, "another port") {
		t.Errorf("the log says %s", text)
	}
}

func TestWebServes(t *testing.T) {
	log := new(lines)
	cfg := webConfig("127.0.0.1:0", "")
	cfg.Log = zerolog.New(log)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	up := make(chan struct{})
	log.on("are served", func() { close(up) })
	done := make(chan struct{})
	go func() { defer close(done); control.NewWeb(cfg).Run(ctx) }()
	<-up
	var at struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal([]byte(log.String()), &at); err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + at.Address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(b) != "ok\n" {
		t.Errorf("%s", b)
	}
	cancel()
	<-done
}

// lines is a log that calls a function when a text is first written.
type lines struct {
	mu   sync.Mutex
	b    bytes.Buffer
	text string
	f    func()
}

func (l *lines) on(text string, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text, l.f = text, f
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil && bytes.Contains(p, []byte(l.text)) {
		f := l.f
		l.f = nil
		defer f()
	}
	return l.b.Write(p)
}
