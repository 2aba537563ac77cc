package syslog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
)

// rsyslog is Debian's rsyslogd on loopback, writing what it takes to files.
// Queues are direct: what it has read it has written.
type rsyslog struct {
	dir           string
	udp, tcp, tls string // addresses
	conf          string
	process       *exec.Cmd
	said          *bytes.Buffer
	clientTLS     tlsconf.Config
}

// need skips the test where something is missing, and fails it in CI.
func need(t *testing.T, err error, what string) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is needed in CI: %v", what, err)
	default:
		t.Skipf("needs %s: %v", what, err)
	}
}

const rsyslogConf = `
global(workDirectory="%[1]s" maxMessageSize="256k" parser.escapeControlCharactersOnReceive="off")
main_queue(queue.type="Direct")
template(name="whole" type="string" string="%%hostname%% %%app-name%% %%msgid%% %%structured-data%%\n%%msg%%\n")
module(load="imudp")
module(load="imptcp")
input(type="imudp" address="127.0.0.1" port="%[2]s" rcvbufSize="8m" ruleset="udp")
input(type="imptcp" address="127.0.0.1" port="%[3]s" ruleset="tcp" supportOctetCountedFraming="on" maxFrameSize="300000")
ruleset(name="udp" queue.type="Direct") { action(type="omfile" file="%[1]s/udp" template="whole" asyncWriting="off" flushOnTXEnd="on") }
ruleset(name="tcp" queue.type="Direct") { action(type="omfile" file="%[1]s/tcp" template="whole" asyncWriting="off" flushOnTXEnd="on") }
`

const rsyslogTLS = `
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["agent.example"] maxFrameSize="300000")
input(type="imtcp" address="127.0.0.1" port="%[2]s" ruleset="tls" supportOctetCountedFraming="on")
ruleset(name="tls" queue.type="Direct") { action(type="omfile" file="%[1]s/tls" template="whole" asyncWriting="off" flushOnTXEnd="on") }
`

// newRsyslog starts a receiver that is gone with the test.
func newRsyslog(t *testing.T, withTLS bool) *rsyslog {
	t.Helper()
	_, err := exec.LookPath("rsyslogd")
	need(t, err, "rsyslogd (package rsyslog)")
	r := &rsyslog{dir: t.TempDir(), udp: freePort(t), tcp: freePort(t), said: &bytes.Buffer{}}
	_, udp, _ := net.SplitHostPort(r.udp)
	_, tcp, _ := net.SplitHostPort(r.tcp)
	conf := fmt.Sprintf(rsyslogConf, r.dir, udp, tcp)
	if withTLS {
		drivers, _ := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_gtls.so")
		if len(drivers) == 0 {
			need(t, errors.New("no lmnsd_gtls.so"), "rsyslog's TLS driver (package rsyslog-gnutls)")
		}
		ca := outputtest.NewAuthority(t, "Test CA")
		end := time.Now().Add(time.Hour)
		certFile, keyFile := ca.Issue(t, end, "127.0.0.1", "localhost")
		r.clientTLS = tlsconf.Config{CAFile: ca.File}
		r.clientTLS.CertFile, r.clientTLS.KeyFile = ca.Issue(t, end, "agent.example")
		r.tls = freePort(t)
		_, port, _ := net.SplitHostPort(r.tls)
		conf = fmt.Sprintf("global(defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)\n",
			ca.File, certFile, keyFile) + conf + fmt.Sprintf(rsyslogTLS, r.dir, port)
	}
	r.conf = filepath.Join(r.dir, "rsyslog.conf")
	if err := os.WriteFile(r.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kill)
	r.start(t)
	return r
}

// freePort returns an address that was free a moment ago, for UDP and TCP.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// start starts rsyslogd and waits until it listens.
func (r *rsyslog) start(t *testing.T) {
	t.Helper()
	_ = os.Remove(filepath.Join(r.dir, "pid")) // of one that was killed
	r.process = exec.Command("rsyslogd", "-n", "-f", r.conf, "-i", filepath.Join(r.dir, "pid"))
	r.process.Stdout, r.process.Stderr = r.said, r.said
	if err := r.process.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, addr := range []string{r.tcp, r.tls} {
		eventually(ctx, t, "rsyslogd listens on "+addr, func() bool {
			if addr == "" {
				return true
			}
			c, err := net.Dial("tcp", addr)
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
	}
}

// kill ends the process as kill -9 does.
func (r *rsyslog) kill() {
	if r.process != nil {
		_ = r.process.Process.Kill()
		_ = r.process.Wait()
		r.process = nil
	}
}

// eventually waits for something that another process does and nobody tells.
func eventually(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, ctx.Err())
		}
	}
}

// stored is one message as rsyslogd wrote it.
type stored struct{ header, msg string }

// read returns what stands in one of its files, whole messages only.
func (r *rsyslog) read(t *testing.T, name string) []stored {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var out []stored
	in := bufio.NewReader(bytes.NewReader(content))
	for {
		header, err1 := in.ReadString('\n')
		msg, err2 := in.ReadString('\n')
		if err1 != nil || err2 != nil {
			return out
		}
		out = append(out, stored{strings.TrimSuffix(header, "\n"), strings.TrimSuffix(msg, "\n")})
	}
}

// Every record stands in rsyslogd's file byte for byte, over each transport and
// framing, up to 64 KiB, whatever surrounds it.
func TestInvariant7_Rsyslog(t *testing.T) {
	r := newRsyslog(t, true)
	for _, v := range []struct {
		name, file string
		conf       Config
	}{
		{"udp", "udp", Config{Transport: UDP, Addresses: []string{r.udp}}},
		{"tcp octet-counting", "tcp", Config{Transport: TCP, Framing: OctetCounting, Addresses: []string{r.tcp}}},
		{"tcp lf", "tcp", Config{Transport: TCP, Framing: LF, Addresses: []string{r.tcp}}},
		{"tls", "tls", Config{Transport: TLS, Addresses: []string{r.tls}, TLS: r.clientTLS}},
	} {
		t.Run(v.name, func(t *testing.T) {
			v.conf.MaxMessage, v.conf.ConfirmDelay, v.conf.Hostname = 64<<10, 50*time.Millisecond, "collector-1"
			o := open(t, v.conf)
			var records []record.Record
			for _, rec := range outputtest.OddRecords() {
				if len(rec.Raw) < 60_000 {
					records = append(records, rec)
				}
			}
			edge := outputtest.Numbered("edge", 1)[0]
			edge.Raw = []byte(`{"x":"` + strings.Repeat("y", 64<<10-600) + `"}`)
			records = append(records, edge)
			records = append(records, outputtest.Numbered("many", 500)...)
			before := len(r.read(t, v.file))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			sent := 0
			send := func(b []record.Record) {
				if err := o.Send(ctx, batch(b)); err != nil {
					t.Fatalf("sending: %v", err)
				}
				sent += len(b)
			}
			if v.conf.Transport == UDP {
				for i := range records { // one at a time: nothing holds the sender back
					send(records[i : i+1])
					eventually(ctx, t, "the record is stored", func() bool { return len(r.read(t, v.file)) >= before+sent })
				}
			} else {
				send(records)
			}
			eventually(ctx, t, "all is stored", func() bool { return len(r.read(t, v.file)) >= before+sent })
			got := r.read(t, v.file)[before:]
			if len(got) != len(records) {
				t.Fatalf("TestInvariant11: %d messages stored, want %d", len(got), len(records))
			}
			for i, rec := range records {
				if got[i].msg != string(rec.Raw) {
					t.Fatalf("record %d stored as\n%.300q\nwant\n%.300q", i, got[i].msg, rec.Raw)
				}
				if !strings.HasPrefix(got[i].header, "collector-1 cloudtrail ") || !strings.Contains(got[i].header, `[trailpoll@32473 id="`) {
					t.Fatalf("record %d: header %q", i, got[i].header)
				}
			}
		})
	}
}

// rsyslogd is killed with SIGKILL in mid-stream, time and again. Whatever was
// confirmed stands in its file; all that was not is sent again, and nothing is
// lost.
func TestInvariant1_RsyslogKilled(t *testing.T) {
	r := newRsyslog(t, false)
	o := open(t, Config{
		Transport: TCP, Addresses: []string{r.tcp}, ConfirmDelay: 250 * time.Millisecond, Timeout: 5 * time.Second,
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	const batches, size, kills = 250, 40, 5
	type outstanding struct {
		n int
		c record.Confirmation
	}
	confirmed := map[int]bool{}
	repeats := 0
	queue := make([]int, batches)
	for i := range queue {
		queue[i] = i
	}
	name := func(n int) string { return fmt.Sprintf("b%03d", n) }
	for round := 0; len(confirmed) < batches; round++ {
		// Written at full speed, in a process that dies in the midst of it.
		share := len(queue)
		if round < kills {
			share = max(1, len(queue)/(kills-round+1))
		}
		var waiting []outstanding
		var again []int
		for i, n := range queue[:share] {
			c, err := o.Write(ctx, batch(outputtest.Numbered(name(n), size)))
			if err != nil {
				again = append(again, n)
				continue
			}
			waiting = append(waiting, outstanding{n, c})
			if round < kills && i == share/2 {
				if round%2 == 0 { // let the first half be confirmed
					for _, w := range waiting {
						if err := w.c.Wait(ctx); err == nil {
							confirmed[w.n] = true
						} else {
							again = append(again, w.n)
						}
					}
					waiting = nil
				}
			}
			if round < kills && i == share*3/4 {
				r.kill()
			}
		}
		for _, w := range waiting {
			if err := w.c.Wait(ctx); err == nil {
				confirmed[w.n] = true
			} else {
				again = append(again, w.n)
			}
		}
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
		// Now, not at the end: what is sent again must not hide a loss.
		there := map[string]bool{}
		for _, m := range r.read(t, "tcp") {
			there[m.msg] = true
		}
		for n := range confirmed {
			for _, rec := range outputtest.Numbered(name(n), size) {
				if !there[string(rec.Raw)] {
					t.Fatalf("round %d: confirmed and not stored: %s", round, rec.Raw)
				}
			}
		}
		repeats += len(again)
		queue = append(again, queue[share:]...)
		r.kill()
		r.start(t)
	}
	if repeats == 0 {
		t.Error("nothing was outstanding at any kill: the test shows nothing")
	}
	t.Logf("%d batches confirmed, %d sent again after kills", len(confirmed), repeats)
}
