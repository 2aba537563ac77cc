package syslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// daemon is a real receiver with what a client needs to be let in.
type daemon struct {
	*receivertest.Daemon
	tls tlsconf.Config
}

// newDaemon starts a receiver that is gone with the test. Without the daemon
// the test is skipped, and in CI it fails.
func newDaemon(t *testing.T, make func(string, *receivertest.CA) (*receivertest.Daemon, error)) *daemon {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real syslog receiver and a while: not with -short")
	}
	ca, err := receivertest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d, err := make(dir, ca)
	switch {
	case errors.Is(err, receivertest.ErrNoDaemon) && os.Getenv("CI") != "true":
		t.Skipf("needs a real syslog receiver: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	certFile, keyFile, err := ca.IssueFiles(dir, "client", receivertest.DaemonClient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Kill)
	if err := startDaemon(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return &daemon{d, tlsconf.Config{CAFile: dir + "/ca.crt", CertFile: certFile, KeyFile: keyFile}}
}

func startDaemon(ctx context.Context, d *receivertest.Daemon) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return d.Start(ctx)
}

// eventually waits for something that another process does and nobody tells.
func eventually(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
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

func (d *daemon) stored(t *testing.T, listener string) []receivertest.Stored {
	t.Helper()
	s, err := d.Stored(listener)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// longest is what the real receivers are asked to take.
const longest = 64 << 10

// everything is the odd records, the corpus, and one at the limit, as far as
// they fit into a message.
func everything() (records []record.Record) {
	add := func(r record.Record) {
		if len(r.Raw) <= longest-2000 {
			records = append(records, r)
		}
	}
	for _, r := range outputtest.OddRecords() {
		add(r)
	}
	c := corpus.New(11)
	for _, l := range corpus.Layouts() {
		at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		for _, objects := range []iter.Seq[corpus.Object]{
			c.Objects(corpus.Traffic{Layout: l, Accounts: 1, LogTypes: corpus.LogTypes(), From: at, Slots: 1, FilesPerSlot: 1}),
			c.Odd(l, at),
		} {
			for o := range objects {
				object := &record.Object{Bucket: "corpus", Key: o.Key, Stamp: at}
				for i := range o.Records {
					add(record.Record{Object: object, Index: i, Raw: o.Records[i].Raw, EventID: []byte(o.Records[i].EventID)})
				}
			}
		}
	}
	edge := outputtest.Numbered("edge", 1)[0]
	edge.Raw = []byte(`{"x":"` + strings.Repeat("y", longest-600) + `"}`)
	return append(records, edge)
}

// Every record stands in a real receiver's file byte for byte, over each
// transport, framing and format, whatever surrounds it, and makes one message.
func TestInvariant7_11_RealReceivers(t *testing.T) {
	records := everything()
	for _, maker := range []struct {
		name string
		make func(string, *receivertest.CA) (*receivertest.Daemon, error)
	}{{"rsyslog", receivertest.NewRsyslog}, {"syslog-ng", receivertest.NewSyslogNG}} {
		t.Run(maker.name, func(t *testing.T) {
			d := newDaemon(t, maker.make)
			for _, v := range []struct {
				listener  string
				transport Transport
				framing   Framing
				style     MessageFormat
			}{
				{receivertest.ListenUDP, UDP, "", RFC5424},
				{receivertest.ListenTCP, TCP, OctetCounting, RFC5424},
				{receivertest.ListenTLS, TLS, OctetCounting, RFC5424},
				{receivertest.ListenLF, TCP, LF, RFC5424},
				{receivertest.ListenBSD, TCP, LF, RFC3164},
				{receivertest.ListenRELP, RELP, "", RFC5424},
				{receivertest.ListenRELPTLS, RELPTLS, "", RFC5424},
				{receivertest.ListenRELP, RELP, "", RFC3164},
				{receivertest.ListenTLS, TLS, OctetCounting, RFC3164},
			} {
				if maker.name == "rsyslog" && v.transport == TCP {
					v.listener = receivertest.ListenTCP // takes both framings and formats
				}
				if d.Addr(v.listener) == "" || maker.name == "syslog-ng" && v.style == RFC3164 && v.listener != receivertest.ListenBSD {
					continue
				}
				records := records
				if v.transport == UDP { // slow, since a few go at a time
					records = slices.Concat(records[:300], records[len(records)-1000:])
				}
				t.Run(fmt.Sprintf("%s %s %s", v.transport, v.framing, v.style), func(t *testing.T) {
					arrive(t, d, v.listener, Config{
						Transport: v.transport, Framing: v.framing, MessageFormat: v.style, TLS: d.tls,
						MaxMessage: longest, ConfirmDelay: 50 * time.Millisecond, Hostname: "collector-1",
					}, records)
				})
			}
		})
	}
}

// arrive sends the records and compares them with what the daemon stored.
func arrive(t *testing.T, d *daemon, listener string, conf Config, records []record.Record) {
	conf.Addresses = []string{d.Addr(listener)}
	o := open(t, conf)
	before := len(d.stored(t, listener))
	there := func(n int) func() bool {
		return func() bool { return len(d.stored(t, listener)) >= before+n }
	}
	if conf.Transport == UDP {
		const few = 20 // nothing holds the sender back, so a few at a time
		for i := 0; i < len(records); i += few {
			part := records[i:min(i+few, len(records))]
			if err := o.Send(t.Context(), batch(part)); err != nil {
				t.Fatal(err)
			}
			eventually(t.Context(), t, "the datagrams are stored", there(i+len(part)))
		}
	} else {
		for i := 0; i < len(records); i += 500 {
			if err := o.Send(t.Context(), batch(records[i:min(i+500, len(records))])); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t.Context(), t, "all is stored", there(len(records)))
	}
	got := d.stored(t, listener)[before:]
	if len(got) != len(records) {
		t.Fatalf("invariant 11: %d messages stored, want %d", len(got), len(records))
	}
	for i, rec := range records {
		text := got[i].Text
		if conf.MessageFormat == RFC3164 {
			text = bytes.TrimPrefix(text, []byte(" ")) // it stands behind the tag
		}
		if !bytes.Equal(text, rec.Raw) {
			t.Fatalf("record %d stored as\n%.300q\nwant\n%.300q", i, text, rec.Raw)
		}
		want := "collector-1 cloudtrail "
		if !strings.HasPrefix(got[i].Header, want) || conf.MessageFormat == RFC5424 && !strings.Contains(got[i].Header, `[trailpoll@32473 `) {
			t.Fatalf("record %d: header %q", i, got[i].Header)
		}
	}
	t.Logf("%d records", len(records))
}

// A real receiver that does not like our certificate takes nothing, and what
// has to be done is said.
func TestInvariant1_RealReceiversRefuse(t *testing.T) {
	d := newDaemon(t, receivertest.NewRsyslog)
	rogue := outputtest.NewAuthority(t, "Rogue CA")
	end := time.Now().Add(time.Hour)
	theirs := d.tls
	theirs.CertFile, theirs.KeyFile = rogue.Issue(t, end, receivertest.DaemonClient)
	for _, v := range []struct {
		listener  string
		transport Transport
	}{{receivertest.ListenTLS, TLS}, {receivertest.ListenRELPTLS, RELPTLS}} {
		for name, conf := range map[string]tlsconf.Config{"none": {CAFile: d.tls.CAFile}, "rogue": theirs} {
			o := open(t, Config{
				Transport: v.transport, Addresses: []string{d.Addr(v.listener)}, TLS: conf,
				ConfirmDelay: 500 * time.Millisecond, Timeout: 5 * time.Second,
			})
			for range 3 {
				if err := o.Send(t.Context(), batch(outputtest.Numbered("n", 50))); err == nil {
					t.Errorf("%s, certificate %s: acknowledged", v.transport, name)
				}
			}
		}
		if got := d.stored(t, v.listener); len(got) > 0 {
			t.Errorf("%s: %d messages stored", v.transport, len(got))
		}
	}
}

// A real receiver that breaks the session at a message over its limit takes all
// the others, and the one is refused.
func TestInvariant5_RealReceiverAborts(t *testing.T) {
	d := newDaemon(t, receivertest.NewRsyslog)
	o := open(t, Config{Transport: RELP, Addresses: []string{d.Addr(receivertest.ListenRELP)}, MaxMessage: 1 << 20, Timeout: 5 * time.Second})
	records := outputtest.Numbered("n", 10)
	records[4].Raw = []byte(`{"x":"` + strings.Repeat("y", 400_000) + `"}`)
	var err error
	for range 20 {
		if err = o.Send(t.Context(), batch(records)); len(fault.RefusalsOf(err)) > 0 {
			break
		}
	}
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != fault.Refused || len(e.Records) != 1 || e.Records[0].Index != 4 {
		t.Fatalf("%v", err)
	}
	there := map[string]bool{}
	for _, s := range d.stored(t, receivertest.ListenRELP) {
		there[string(s.Text)] = true
	}
	for i, r := range records {
		if there[string(r.Raw)] != (i != 4) {
			t.Errorf("record %d is stored: %v", i, i == 4)
		}
	}
}
