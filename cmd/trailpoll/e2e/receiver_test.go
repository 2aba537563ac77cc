//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

const (
	tokenInEnv = "TRAILPOLL_E2E_TOKEN"
	token      = "the-token-of-the-end-to-end-tests"
)

// receiver is where an output sends to, with the count of what came.
type receiver struct {
	name   string
	tally  receivertest.Tally
	http   *receivertest.HTTP // one of these two
	syslog *receivertest.Syslog
	ca     *receivertest.CA
	caFile string

	mu  sync.Mutex
	bad []error // messages that are none
	cut bool    // connections may break in the midst of a message
}

// newHTTPS starts a receiver over HTTPS, with an authority of its own, that
// wants the token.
func newHTTPS(t *testing.T, name string, cfg receivertest.HTTPConfig) *receiver {
	t.Helper()
	r := &receiver{name: name}
	if cfg.CA == nil {
		ca, err := receivertest.NewCA()
		if err != nil {
			t.Fatal(err)
		}
		cfg.CA = ca
	}
	r.ca = cfg.CA
	r.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(r.caFile, cfg.CA.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	r.listen(t, cfg)
	return r
}

// listen starts the receiver, or starts it again after it was closed.
func (r *receiver) listen(t *testing.T, cfg receivertest.HTTPConfig) {
	t.Helper()
	if cfg.Take == nil {
		cfg.Take = r.take
	}
	answer := cfg.Answer
	cfg.Answer = func(q *receivertest.Request) receivertest.Answer {
		if q.Header.Get("Authorization") != "Bearer "+token {
			return receivertest.Answer{Status: 401}
		}
		if answer == nil {
			return receivertest.Answer{}
		}
		return answer(q)
	}
	h, err := receivertest.NewHTTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.http = h
	t.Cleanup(func() { _ = h.Close() })
}

// newSyslog starts a receiver of RFC 5424 over TCP.
func newSyslog(t *testing.T, name string, cfg receivertest.SyslogConfig) *receiver {
	t.Helper()
	r := &receiver{name: name}
	if cfg.Take == nil {
		cfg.Take = r.takeMessage
	}
	s, err := receivertest.NewSyslog(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.syslog = s
	t.Cleanup(func() {
		_ = s.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, err := range s.Problems() {
			if !r.cut || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, err := range r.bad {
			t.Errorf("%s: %v", name, err)
		}
	})
	return r
}

func (r *receiver) take(raw []byte) { r.tally.Take(raw) }

func (r *receiver) takeMessage(raw []byte) {
	m, err := receivertest.ParseRFC5424(raw)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bad = append(r.bad, err)
		return
	}
	r.take(m.Text)
}

func (r *receiver) expect(o *corpus.Object) {
	for i := range o.Records {
		r.tally.Expect(o.Records[i].Raw, o.Records[i].EventID)
	}
}

// output is the receiver's [[output]] in the configuration. In lines, keys are
// added to it.
func (r *receiver) output(lines string) string {
	if r.syslog != nil {
		return fmt.Sprintf(`
[[output]]
name = %q
type = "syslog"
addresses = [%q]
transport = "tcp"
max_message = "2MiB"
confirm_delay = "300ms"
%s
`, r.name, r.syslog.Addr(), lines)
	}
	return fmt.Sprintf(`
[[output]]
name = %q
type = "https"
url = "%s/ingest"
token = "env:`+tokenInEnv+`"
batch_wait = "100ms"
%s
[output.tls]
ca_file = %q
`, r.name, r.http.URL(), lines, r.caFile)
}

// whole fails the test unless everything came, once and unchanged.
func (r *receiver) whole(t *testing.T) {
	t.Helper()
	if got := r.tally.Result(); !got.Whole() {
		t.Errorf("%s: %v", r.name, got)
	}
}

// openConnections is how many connections to the address its owner has not
// closed yet (proc_pid_net(5): states 01 ESTABLISHED and 08 CLOSE_WAIT).
func openConnections(t *testing.T, addr string) (n int) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	local := fmt.Sprintf("0100007F:%04X", number)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == local && (f[3] == "01" || f[3] == "08") {
			n++
		}
	}
	return n
}
