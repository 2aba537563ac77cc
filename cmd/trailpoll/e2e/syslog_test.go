//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
)

// rsyslogd is a real receiver: the program sends to it, and what it stored is
// what counts.
type rsyslogd struct {
	*receivertest.Daemon
	receiver

	dir, listener string
	size          int64 // of all that is expected, without headers
	// huge are the records that don't fit into max_message, by event id: they
	// arrive reduced, which says so.
	huge map[string][]byte
}

// newRsyslogd starts one. Without rsyslog the test is skipped, and in CI it
// fails.
func newRsyslogd(t *testing.T, listener string) *rsyslogd {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real syslog receiver and a while: not with -short")
	}
	ca, err := receivertest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	r := &rsyslogd{dir: t.TempDir(), listener: listener}
	r.Daemon, err = receivertest.NewRsyslog(r.dir, ca)
	switch {
	case errors.Is(err, receivertest.ErrNoDaemon) && os.Getenv("CI") != "true":
		t.Skipf("needs a real syslog receiver: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	if _, _, err := ca.IssueFiles(r.dir, "client", receivertest.DaemonClient); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	r.begin(t)
	return r
}

func (r *rsyslogd) begin(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// output is its [[output]] in the configuration, by way of the address.
func (r *rsyslogd) output(transport, addr string) string {
	lines := fmt.Sprintf(`
[[output]]
name = "rsyslog"
type = "syslog"
addresses = [%q]
transport = %q
max_message = "256KiB"
`, addr, transport)
	if transport == "tls" || transport == "relp-tls" {
		lines += fmt.Sprintf("[output.tls]\nca_file = %q\ncert_file = %q\nkey_file = %q\n",
			filepath.Join(r.dir, "ca.crt"), filepath.Join(r.dir, "client.crt"), filepath.Join(r.dir, "client.key"))
	}
	return lines
}

// fill puts so many records into the bucket.
func (r *rsyslogd) fill(t *testing.T, b *bucket, records int) {
	t.Helper()
	drain(t, b, records, &r.receiver)
	for o := range backlog(records) {
		for i := range o.Records {
			raw := o.Records[i].Raw
			r.size += int64(len(raw))
			if len(raw) > 200<<10 {
				if r.huge == nil {
					r.huge = make(map[string][]byte)
				}
				r.huge[o.Records[i].EventID] = raw
			}
		}
	}
}

// count holds what was stored against what was written.
func (r *rsyslogd) count(t *testing.T) receivertest.Result {
	t.Helper()
	stored, err := r.Stored(r.listener)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stored {
		r.take(r.whole(s.Text))
	}
	return r.tally.Result()
}

// whole returns the record that a reduced one was made of, and any other as it is.
func (r *rsyslogd) whole(text []byte) []byte {
	if !bytes.Contains(text, []byte(`,"trailpoll":{"reduced":[`)) {
		return text
	}
	for id, raw := range r.huge {
		if bytes.Contains(text, []byte(`"eventID":"`+id+`"`)) {
			return raw
		}
	}
	return text
}

// troubled runs the program over a backlog while something goes wrong ten times
// in its midst, and then to its end: nothing may be lost.
func (r *rsyslogd) troubled(t *testing.T, transport, addr string, wrong func(i int)) {
	const records, times = 20_000, 10
	b := newBucket(t)
	r.fill(t, b, records)
	conf := newSettings(t, "", source("drain", b, "", ""), r.output(transport, addr))
	c := conf.start(t, "run")
	for i := range times {
		// By what came since the last time: so the receiver reads again by then,
		// and what its kernel took while it started is not lost with it.
		last := r.Size(r.listener)
		await(t, 2*time.Minute, "the drain goes on", func() bool { return r.Size(r.listener) >= last+r.size/(times+2) })
		wrong(i)
	}
	stopped(t, c)
	conf.code(t, 0, 2*time.Minute, "run", "--once")
	// TCP and TLS: the program has ended, and rsyslogd may still have to read.
	within(5*time.Second, func() bool { return openConnections(t, r.Addr(r.listener)) == 0 })
	got := r.count(t)
	if got.Lost > 0 || got.Altered > 0 {
		t.Errorf("invariant 1: %v", got)
	}
	t.Logf("%s, %d times: %v", transport, times, got)
}

// rsyslogd is killed with SIGKILL and started again.
func TestReceivers_Invariant1_RsyslogKilled(t *testing.T) {
	for _, transport := range []string{"relp-tls", "tls", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			r := newRsyslogd(t, transport)
			r.troubled(t, transport, r.Addr(transport), func(int) {
				r.Kill()
				r.begin(t)
			})
		})
	}
}

// The network is cut; over RELP it has been silent before.
func TestReceivers_Invariant1_RsyslogCutOff(t *testing.T) {
	for _, transport := range []string{"relp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			r := newRsyslogd(t, transport)
			w, err := receivertest.NewWire(r.Addr(transport))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = w.Close() })
			r.troubled(t, transport, w.Addr(), func(i int) {
				silence := time.Duration(0)
				if transport == "relp" && i%2 == 0 {
					silence = 200 * time.Millisecond
				}
				w.Cut(silence)
			})
		})
	}
}

// The program itself is killed, and ended in order: over RELP no more comes
// again than two batches, and after an end in order nothing.
func TestReceivers_Invariant2_RELPRepeatsLittle(t *testing.T) {
	const (
		records, times = 40_000, 9
		bound          = 2 * 500 // invariant 2: 2 × connections × the records of a batch
	)
	r := newRsyslogd(t, receivertest.ListenRELP)
	b := newBucket(t)
	r.fill(t, b, records)
	conf := newSettings(t, "", source("drain", b, "", ""), r.output("relp", r.Addr(receivertest.ListenRELP)))
	j, came := newJournal(), 0
	read := func() { // notes what came in this run
		t.Helper()
		await(t, 10*time.Second, "rsyslogd has read all", func() bool { return openConnections(t, r.Addr(r.listener)) == 0 })
		stored, err := r.Stored(r.listener)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stored[came:] {
			j.take(0, s.Text)
			r.take(s.Text)
		}
		came = len(stored)
	}
	killed := map[int]bool{}
	for i := range times {
		run := j.next()
		c := conf.start(t, "run")
		last := r.Size(r.listener)
		await(t, time.Minute, "the drain goes on", func() bool { return r.Size(r.listener) > last+r.size/(times*4) })
		if killed[run] = i%3 != 2; killed[run] {
			c.Kill()
		} else {
			stopped(t, c)
		}
		read()
	}
	j.next()
	conf.code(t, 0, time.Minute, "run", "--once")
	read()
	got := r.tally.Result()
	if got.Lost > 0 || got.Altered > 0 {
		t.Errorf("invariant 1: %v", got)
	}
	for run, n := range j.repeats {
		if n > bound || n > 0 && !killed[run] {
			t.Errorf("invariant 2: run %d, killed %v: %d records repeated, at most %d may be after a kill", run, killed[run], n, bound)
		}
	}
	if j.within > 0 {
		t.Errorf("invariant 2: %d records came twice in one run", j.within)
	}
	t.Logf("%d ends, two of three by kill -9: %v", times, got)
}
