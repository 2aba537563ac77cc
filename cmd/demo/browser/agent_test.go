package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// world is a bucket of three weeks with a gap and something parked in it, and
// the agent that works on it.
type world struct {
	server     *s3test.Server
	url        string
	gapAccount string
	gapDay     string // it is listed, and can't be read
	parkedDay  string // it is damaged
}

const gapRegion = "eu-central-1"

// newWorld starts the real program and waits until it has done all it can.
func newWorld(t *testing.T) *world {
	t.Helper()
	server, err := s3test.Start(s3test.Config{AccessKey: "AKPAGE", Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	today := time.Now().UTC().Truncate(24 * time.Hour)
	at := func(ago int) time.Time { return today.AddDate(0, 0, -ago) }
	w := &world{server: server, gapAccount: corpus.Account(0), gapDay: at(4).Format(time.DateOnly), parkedDay: at(9).Format(time.DateOnly)}
	var gap []string
	for ago := 20; ago >= 1; ago-- {
		for o := range corpus.New(uint64(ago)).Objects(corpus.Traffic{From: at(ago).Add(12 * time.Hour), Slots: 1, FilesPerSlot: 1, Records: 5, OneTrail: true, LogTypes: []string{corpus.CloudTrail}}) {
			body := o.Body
			switch {
			case ago == 4 && o.Account == w.gapAccount && o.Region == gapRegion:
				gap = append(gap, o.Key)
			case ago == 9 && o.Account == corpus.Account(1):
				body = []byte("no gzip")
			case ago == 6 && o.Account == corpus.Account(2):
				continue // nothing was written that day
			}
			server.Put("logs", o.Key, body)
		}
	}
	if len(gap) == 0 {
		t.Fatal("there is no gap to be seen")
	}
	server.Inject(func(op, _, key string, _ int) s3test.Fault {
		if op == s3test.GetObject && strings.HasSuffix(key, filepath.Base(gap[0])) {
			return s3test.Fault{Delay: time.Hour} // until the test ends, or lets it go
		}
		return s3test.Fault{}
	})
	w.start(t, at(15))
	return w
}

func (w *world) start(t *testing.T, begin time.Time) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "trailpoll")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/trailpoll")
	build.Dir = filepath.Join("..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	conf := filepath.Join(dir, "trailpoll.toml")
	text := fmt.Sprintf(`
[agent]
state_dir = %q
log_file = %q
listen = "127.0.0.1:0"
[[source]]
name = "org-trail"
bucket = "logs"
region = "us-east-1"
endpoint = %q
path_style = true
start = %q
refresh = "1s"
idle_refresh = "1m"
[[source.account]]
id = %q
name = "payments-prod"
[source.credentials]
type = "static"
access_key_id = "AKPAGE"
secret_access_key = "the secret of this test"
[[output]]
name = "siem"
type = "file"
path = %q
`, filepath.Join(dir, "state"), filepath.Join(dir, "log"), w.server.URL(), begin.Format(time.DateOnly), w.gapAccount, filepath.Join(dir, "out.ndjson"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := exec.CommandContext(context.WithoutCancel(t.Context()), program, "run", "--config", conf)
	agent.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true")
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = agent.Wait() }()
	t.Cleanup(func() {
		w.server.Inject(nil)
		_ = agent.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = agent.Process.Kill()
			<-ended
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the agent's log:\n%s", log)
		}
	})
	served := regexp.MustCompile(`"address":"([^"]+)"`)
	await(t, "the agent serves", func() bool {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		m := served.FindSubmatch(log)
		if m != nil {
			w.url = "http://" + string(m[1]) + "/"
		}
		return m != nil
	})
	await(t, "all but the gap is there", func() bool { return w.states(t) == "missing 1 parked 3" })
}

// states counts the days that are not well.
func (w *world) states(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(w.url + "v1/coverage?days=15")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var c struct {
		Rows []struct {
			Cells []struct{ State string }
		}
	}
	if json.NewDecoder(resp.Body).Decode(&c) != nil || len(c.Rows) != 9 {
		return ""
	}
	n := map[string]int{}
	for _, r := range c.Rows {
		for _, cell := range r.Cells {
			n[cell.State]++
		}
	}
	return fmt.Sprintf("missing %d parked %d", n["missing"], n["parked"])
}

// await asks until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for !so() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}
