package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
)

var update = flag.Bool("update", false, "write golden files")

var missingCA = tlsconf.Config{CAFile: "/nonexistent"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, conf Config) *Output {
	t.Helper()
	o, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return o
}

func batch(records []record.Record) *record.Batch {
	b := &record.Batch{}
	for _, r := range records {
		b.Add(r)
	}
	return b
}

// mutual makes a server's configuration that wants a client certificate, and
// the client's.
func mutual(t *testing.T) (*tls.Config, tlsconf.Config) {
	ca := outputtest.NewAuthority(t, "Test CA")
	end := time.Now().Add(time.Hour)
	certFile, keyFile := ca.Issue(t, end, "127.0.0.1")
	c, err := tlsconf.Config{CAFile: ca.File, CertFile: certFile, KeyFile: keyFile}.Load()
	if err != nil {
		t.Fatal(err)
	}
	c.Conf.ClientCAs, c.Conf.ClientAuth = c.Conf.RootCAs, tls.RequireAndVerifyClientCert
	certFile, keyFile = ca.Issue(t, end, "agent.example")
	return c.Conf, tlsconf.Config{CAFile: ca.File, CertFile: certFile, KeyFile: keyFile}
}

// Every transport with every message format.
func TestConformance(t *testing.T) {
	for _, style := range []MessageFormat{RFC5424, RFC3164} {
		for _, v := range []struct {
			name      string
			transport Transport
			framing   Framing
		}{
			{"tcp octet-counting", TCP, OctetCounting},
			{"tcp lf", TCP, LF},
			{"tls", TLS, OctetCounting},
			{"relp", RELP, relpFraming},
			{"relp-tls", RELPTLS, relpFraming},
		} {
			t.Run(string(style)+" "+v.name, func(t *testing.T) {
				if testing.Short() && style == RFC3164 && v.framing == OctetCounting {
					t.Skip("not with -short: the others tell as much")
				}
				conformance(t, style, v.transport, v.framing)
			})
		}
		t.Run(string(style)+" udp", func(t *testing.T) {
			outputtest.Run(t, outputtest.Suite{
				Connections: 1, Unacknowledged: true, MaxRecord: 50_000,
				New: func(t *testing.T) (outputtest.Output, outputtest.Receiver) {
					in := newDatagramReceiver(t, style)
					return open(t, Config{Transport: UDP, MessageFormat: style, Addresses: []string{in.conn.LocalAddr().String()}}), in
				},
			})
		})
	}
}

func conformance(t *testing.T, style MessageFormat, transport Transport, framing Framing) {
	pair := func(delay, timeout time.Duration) func(*testing.T) (outputtest.Output, outputtest.Receiver) {
		return func(t *testing.T) (outputtest.Output, outputtest.Receiver) {
			conf := Config{
				Transport: transport, MessageFormat: style, MaxMessage: 4 << 20,
				ConfirmDelay: delay, Timeout: timeout,
			}
			if framing != relpFraming {
				conf.Framing = framing
			}
			var serve *tls.Config
			if transport == TLS || transport == RELPTLS {
				serve, conf.TLS = mutual(t)
			}
			in := newReceiver(t, framing, serve, style)
			conf.Addresses = []string{in.addr}
			return open(t, conf), in
		}
	}
	faults := []outputtest.Case{
		{Fault: outputtest.Fault{Mode: outputtest.Refuse}, Kind: fault.Held, Hint: true},
		{Fault: outputtest.Fault{Mode: outputtest.ResetBefore}, Kind: fault.Temporary},
		{Fault: outputtest.Fault{Mode: outputtest.ResetAfter}, Kind: fault.Temporary},
	}
	relp := framing == relpFraming
	if relp {
		// Over the others a receiver that takes what is sent and says nothing is
		// what every receiver is.
		faults = append(faults,
			outputtest.Case{Fault: outputtest.Fault{Mode: outputtest.Hang}, Kind: fault.Temporary},
			outputtest.Case{Fault: outputtest.Fault{Mode: outputtest.Status, Status: 500}, Kind: fault.Held, Hint: true})
	}
	outputtest.Run(t, outputtest.Suite{
		Connections: 1, Unacknowledged: !relp, Faults: faults,
		New: pair(2*time.Millisecond, 10*time.Second),
		NewForFault: func(t *testing.T, f outputtest.Fault) (outputtest.Output, outputtest.Receiver) {
			if f.Mode == outputtest.Hang {
				return pair(0, 200*time.Millisecond)(t)
			}
			return pair(150*time.Millisecond, 10*time.Second)(t)
		},
	})
}

func goldenRecords() []record.Record {
	records := outputtest.Numbered("golden", 3)
	records[1].EventID = nil
	o := *records[2].Object
	o.Key, o.LogType = "a\"]\\\n\x00\xffé.json.gz", "CloudTrail-Insight"
	o.Labels = map[string]string{"env": "prod", "data class": `"high"`}
	records[2].Object = &o
	return records
}

func TestGolden(t *testing.T) {
	for _, style := range []MessageFormat{RFC5424, RFC3164} {
		suffix := ""
		if style == RFC3164 {
			suffix = "-rfc3164"
		}
		conf := Config{Hostname: "collector-1.example.com", MessageFormat: style}
		for framing, transport := range map[Framing]Transport{OctetCounting: TCP, LF: TCP, relpFraming: RELP} {
			in := newReceiver(t, framing, nil, style)
			conf.Transport, conf.Framing, conf.Addresses = transport, framing, []string{in.addr}
			if framing == relpFraming {
				conf.Framing = ""
			}
			if err := open(t, conf).Send(t.Context(), batch(goldenRecords())); err != nil {
				t.Fatal(err)
			}
			if err := in.Await(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			in.mu.Lock()
			outputtest.Golden(t, "syslog-"+string(framing)+suffix+".txt", in.wire.Bytes(), *update)
			in.mu.Unlock()
		}
		in := newDatagramReceiver(t, style)
		conf.Transport, conf.Framing, conf.Addresses = UDP, "", []string{in.conn.LocalAddr().String()}
		if err := open(t, conf).Send(t.Context(), batch(goldenRecords())); err != nil {
			t.Fatal(err)
		}
		if err := in.Await(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		in.shut()
		outputtest.Golden(t, "syslog-udp"+suffix+".txt", in.wire.Bytes(), *update)
	}
}

// Records that are too large by themselves are named; all others arrive and are
// acknowledged.
func TestTooLarge(t *testing.T) {
	for transport, framing := range map[Transport]Framing{TCP: OctetCounting, RELP: relpFraming, UDP: ""} {
		t.Run(string(transport), func(t *testing.T) {
			conf := Config{Transport: transport, MaxMessage: 1000}
			var in outputtest.Receiver
			if transport == UDP {
				r := newDatagramReceiver(t)
				in, conf.Addresses = r, []string{r.conn.LocalAddr().String()}
			} else {
				r := newReceiver(t, framing, nil)
				in, conf.Addresses = r, []string{r.addr}
			}
			o := open(t, conf)
			records := outputtest.Numbered("n", 5)
			records[1].Raw = []byte(`{"x":"` + strings.Repeat("y", 900) + `"}`) // with its header only
			records[4].Raw = []byte(`{"x":"` + strings.Repeat("y", 5000) + `"}`)
			err := o.Send(t.Context(), batch(records))
			e, ok := errors.AsType[*fault.Error](err)
			if !ok || e.Kind != fault.TooLarge || len(e.Records) != 2 || e.Records[0].Index != 1 || e.Records[1].Index != 4 {
				t.Fatalf("%+v", err)
			}
			if !strings.Contains(e.Records[0].Answer, "max_message") || strings.Contains(e.Records[0].Answer, "yyy") {
				t.Errorf("answer %q", e.Records[0].Answer)
			}
			if err := in.Await(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			// Alone, too.
			err = o.Send(t.Context(), batch(records[4:]))
			if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.TooLarge || len(e.Records) != 1 {
				t.Fatalf("%+v", err)
			}
			if err := o.Send(t.Context(), batch(records[:1])); err != nil {
				t.Fatal(err)
			}
			if err := in.Await(t.Context(), 4); err != nil {
				t.Fatal(err)
			}
			for _, r := range in.Records() {
				if len(r) > 900 {
					t.Fatalf("a record of %d bytes arrived", len(r))
				}
			}
		})
	}
}

// A line break in a record would make two messages of it where a line feed ends
// one.
func TestInvariant11_LineBreakIsRefused(t *testing.T) {
	in := newReceiver(t, LF, nil)
	o := open(t, Config{Transport: TCP, Framing: LF, Addresses: []string{in.addr}})
	records := outputtest.Numbered("n", 3)
	records[1].Raw = []byte("{}\n<134>1 - - - - - - forged")
	err := o.Send(t.Context(), batch(records))
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Refused || len(e.Records) != 1 || e.Records[0].Index != 1 {
		t.Fatalf("%+v", err)
	}
	if err := in.Await(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
}

// All that is not confirmed when the connection breaks is told so at once, and
// what follows goes over a new connection.
func TestInvariant1_BreakFailsUnconfirmed(t *testing.T) {
	in := newReceiver(t, OctetCounting, nil)
	o := open(t, Config{Transport: TCP, Addresses: []string{in.addr}, ConfirmDelay: time.Hour})
	var waits []record.Confirmation
	for i := range 10 {
		c, err := o.Write(t.Context(), batch(outputtest.Numbered(string(rune('a'+i)), 20)))
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, c)
	}
	if err := in.Await(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	// When the peer's kernel has it all, nobody looks at the queue any more: the
	// reader alone can tell that the connection broke.
	l := o.to.(*stream).link.ledger
	eventually(t.Context(), t, "the peer's kernel has it all", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.held == len(waits)
	})
	in.reset()
	for _, c := range waits {
		if err := c.Wait(t.Context()); err == nil || fault.KindOf(err) != fault.Temporary {
			t.Fatalf("%v", err)
		}
	}
	if _, err := o.Write(t.Context(), batch(outputtest.Numbered("again", 5))); err != nil {
		t.Fatal(err)
	}
	if err := in.Await(t.Context(), 205); err != nil {
		t.Fatal(err)
	}
}

// A receiver that stops reading fills the buffers; the write then ends with its
// context, or with the timeout, and breaks the connection.
func TestStuckReceiver(t *testing.T) {
	for _, byContext := range []bool{true, false} {
		ln := listenStuck(t)
		conf := Config{Transport: TCP, Addresses: []string{ln}, Timeout: 200 * time.Millisecond, MaxMessage: 4 << 20}
		ctx := t.Context()
		if byContext {
			conf.Timeout = time.Hour
			c, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			ctx = c
		}
		o := open(t, conf)
		records := outputtest.Numbered("n", 40)
		for i := range records {
			records[i].Raw = []byte(`{"x":"` + strings.Repeat("y", 1<<20) + `"}`)
		}
		begun := time.Now()
		_, err := o.Write(ctx, batch(records))
		if err == nil || fault.KindOf(err) != fault.Temporary || time.Since(begun) > 5*time.Second {
			t.Fatalf("%v after %v", err, time.Since(begun))
		}
		if byContext != errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("by context: %v: %v", byContext, err)
		}
	}
}

// Close ends a Write under way and everything that waits.
func TestCloseEndsWrite(t *testing.T) {
	o := open(t, Config{Transport: TCP, Addresses: []string{listenStuck(t)}, MaxMessage: 4 << 20, ConfirmDelay: time.Hour})
	c, err := o.Write(t.Context(), batch(outputtest.Numbered("n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	records := outputtest.Numbered("n", 40)
	for i := range records {
		records[i].Raw = []byte(`{"x":"` + strings.Repeat("y", 1<<20) + `"}`)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := o.Write(t.Context(), batch(records))
		failed <- err
	}()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("Write returned nil")
	}
	if err := c.Wait(t.Context()); err == nil {
		t.Error("Wait returned nil")
	}
}

// With TLS 1.3 a refused certificate shows only after the handshake: nothing may
// be confirmed by then.
func TestInvariant1_RefusedClientCertificate(t *testing.T) {
	serve, good := mutual(t)
	in := newReceiver(t, OctetCounting, serve)
	rogue := outputtest.NewAuthority(t, "Rogue CA")
	certFile, keyFile := rogue.Issue(t, time.Now().Add(time.Hour), "agent.example")
	for name, conf := range map[string]tlsconf.Config{
		"none":  {CAFile: good.CAFile},
		"rogue": {CAFile: good.CAFile, CertFile: certFile, KeyFile: keyFile},
	} {
		o := open(t, Config{Transport: TLS, Addresses: []string{in.addr}, TLS: conf, ConfirmDelay: 200 * time.Millisecond})
		for range 10 {
			err := o.Send(t.Context(), batch(outputtest.Numbered("n", 100)))
			if err == nil {
				t.Fatalf("%s: confirmed", name)
			}
			// The alert is lost when the connection breaks under a write.
			if k := fault.KindOf(err); k != fault.Held && k != fault.Temporary {
				t.Errorf("%s: %v, %v", name, k, err)
			}
			if name == "none" && !strings.Contains(fault.HintOf(err), "tls.cert_file") {
				t.Errorf("%s: hint %q: %v", name, fault.HintOf(err), err)
			}
		}
	}
	if n := len(in.Records()); n != 0 {
		t.Errorf("%d records arrived", n)
	}
}

// Over UDP a closed port is noticed where the system reports it.
func TestClosedPort(t *testing.T) {
	in := newDatagramReceiver(t)
	o := open(t, Config{Transport: UDP, Addresses: []string{in.conn.LocalAddr().String()}})
	in.shut()
	err := o.Send(t.Context(), batch(outputtest.Numbered("n", 10)))
	if fault.KindOf(err) != fault.Held || fault.HintOf(err) == "" {
		t.Errorf("%v: %v", fault.KindOf(err), err)
	}
}

// A certificate that has expired or is another's is said with its dates and
// names, and nothing is sent.
func TestCertificateExplained(t *testing.T) {
	ca := outputtest.NewAuthority(t, "Test CA")
	expired := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		end  time.Time
		host string
		want string
	}{
		"expired":    {expired, "127.0.0.1", "valid from "},
		"mismatched": {time.Now().Add(time.Hour), "siem.example.com", `"siem.example.com"`},
	} {
		certFile, keyFile := ca.Issue(t, c.end, c.host)
		serve, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		for transport, framing := range map[Transport]Framing{TLS: OctetCounting, RELPTLS: relpFraming} {
			in := newReceiver(t, framing, &tls.Config{Certificates: []tls.Certificate{serve}})
			o := open(t, Config{Transport: transport, Addresses: []string{in.addr}, TLS: tlsconf.Config{CAFile: ca.File}})
			err := o.Send(t.Context(), batch(outputtest.Numbered("n", 3)))
			hint := fault.HintOf(err)
			if fault.KindOf(err) != fault.Held || !strings.Contains(hint, c.want) || !strings.Contains(hint, c.end.UTC().Format(time.RFC3339)) {
				t.Errorf("%s, %s: %v (%s)", name, transport, err, hint)
			}
			if n := len(in.Records()); n > 0 {
				t.Errorf("%s, %s: %d records arrived", name, transport, n)
			}
		}
	}
}
