//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/checkpoint"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// One object for each thing that can be wrong lies between good ones.
func TestE2E_Invariant5_Bad(t *testing.T) {
	b := newBucket(t)
	web, sys := newHTTPS(t, "web", receivertest.HTTPConfig{}), newSyslog(t, "sys", receivertest.SyslogConfig{})
	layout := corpus.Layouts()[0]
	c := corpus.New(5)
	// What must be parked, by position; the stream is everybody's.
	want := map[string]corpus.Bad{}
	files, records := b.putAll(t, func(yield func(corpus.Object) bool) {
		for _, bad := range c.Bad(layout, hoursAgo(10)) {
			want[position(bad.Key)] = bad
			if !yield(bad.Object) {
				return
			}
		}
		for o := range c.Objects(corpus.Traffic{
			Layout: layout, Accounts: 1, Regions: corpus.Regions()[:1], LogTypes: []string{corpus.CloudTrail},
			From: hoursAgo(10), Slots: 24, FilesPerSlot: 2,
		}) {
			if !yield(o) {
				return
			}
		}
	}, web, sys)
	t.Logf("%d log files, %d of them bad; %d records must arrive", files, len(want), records)

	conf := newSettings(t, "", source("bad", b, "", ""), web.output(""), sys.output(""))
	for n := range 2 { // the second time everything parked is tried again
		run := conf.code(t, 1, 90*time.Second, "run", "--once")
		web.whole(t)
		sys.whole(t)
		said := map[string]entry{}
		for _, e := range run.entries("stays parked") {
			said[e.Output+" "+e.Position] = e
		}
		if len(said) != 2*len(want) {
			t.Errorf("the log names %d parked objects, want %d", len(said), 2*len(want))
		}
		for at, bad := range want {
			for _, output := range []string{"web", "sys"} {
				e := said[output+" "+at]
				record := -1
				if e.Record != nil {
					record = *e.Record
				}
				if e.Reason != string(bad.Reason) || bad.Record >= 0 && record != bad.Record || e.Error == "" {
					t.Errorf("%s, %q: the log says %q at record %d (%s), want %q at %d",
						output, bad.Name, e.Reason, record, e.Error, bad.Reason, bad.Record)
				}
			}
		}
		parkedInState(t, conf, want, n+1)
	}
}

// position is a key's place in its stream, for keys without a prefix and an
// organisation.
func position(key string) string {
	return strings.SplitN(key, "/", 5)[4]
}

// parkedInState holds the state against what must be parked.
func parkedInState(t *testing.T, conf *settings, want map[string]corpus.Bad, attempts int) {
	t.Helper()
	store, _, err := checkpoint.Open(conf.state(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	n := 0
	if err := store.Parked(func(e progress.Entry) bool {
		n++
		bad, ok := want[e.Position]
		record := e.At
		if e.Record != progress.WholeObject {
			record = e.Record
		}
		if !ok || e.Reason != bad.Reason || bad.Record >= 0 && record != bad.Record || (e.Record != progress.WholeObject) != bad.RecordOnly {
			t.Errorf("parked is %q: %q at record %d (%d), want %q at %d", e.Position, e.Reason, e.Record, e.At, bad.Reason, bad.Record)
		}
		if e.Attempts != attempts {
			t.Errorf("parked is %q after %d attempts, want %d", e.Position, e.Attempts, attempts)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if n != 2*len(want) {
		t.Errorf("%d are parked, want %d", n, 2*len(want))
	}
}

// One of two outputs is down: the other gets everything at full speed, and the
// dead one, when it is back, everything, once.
func TestE2E_Invariant6_OneDown(t *testing.T) {
	b := newBucket(t)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{})
	dead := newHTTPS(t, "dead", receivertest.HTTPConfig{})
	const records = 50_000
	drain(t, b, records, web, dead)
	address, ca := dead.http.Addr(), dead.ca
	if err := dead.http.Close(); err != nil {
		t.Fatal(err)
	}

	// How long it takes with nothing wrong, for comparison.
	alone := newSettings(t, "", source("alone", b, "", ""), web.output(""))
	began := time.Now()
	alone.code(t, 0, time.Minute, "run", "--once")
	usual := time.Since(began)
	web.whole(t)
	for o := range backlog(records) {
		web.expect(&o) // a second time, with a second state
	}

	conf := newSettings(t, "", source("both", b, "", ""), web.output(""), dead.output(""))
	began = time.Now()
	c := conf.start(t, "run")
	await(t, time.Minute, "the living output gets all", func() bool { return web.tally.Received() >= 2*records })
	took := time.Since(began)
	web.whole(t)
	t.Logf("%d records to the living output: %v beside a dead one, %v alone", records, took.Round(time.Millisecond), usual.Round(time.Millisecond))
	if took > 2*usual+5*time.Second {
		t.Errorf("the living output was slowed down: %v beside a dead one, %v alone", took, usual)
	}
	await(t, 30*time.Second, "the dead output is held", func() bool {
		return c.says("output is held; its lanes stand still until it is back")
	})

	dead.listen(t, receivertest.HTTPConfig{Listen: address, CA: ca})
	await(t, 80*time.Second, "the dead output gets all", func() bool { return dead.tally.Received() >= records })
	stopped(t, c)
	conf.code(t, 0, time.Minute, "run", "--once")
	dead.whole(t)
	web.whole(t)
	var begins, ends int
	for _, e := range c.entries("") {
		if e.Output == "dead" && e.Trouble == "sending" {
			if strings.HasPrefix(e.Message, "trouble begins") {
				begins++
				if e.Error == "" {
					t.Error("the trouble is not named")
				}
			} else {
				ends++
			}
		}
	}
	if begins != 1 || ends != 1 {
		t.Errorf("the trouble is said to begin %d times and to end %d times, want one line each", begins, ends)
	}
}

// A large object passes within the ceiling of memory.
func TestE2E_Invariant8_Big(t *testing.T) {
	const (
		records = 100_000
		size    = 150_000_000
		ceiling = 128 << 20
	)
	b := newBucket(t)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{})
	large := corpus.New(8).Large(records, size)
	file, err := os.Create(filepath.Join(t.TempDir(), "large.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	stored, err := large.WriteTo(file)
	if err != nil {
		t.Fatal(err)
	}
	inflated := 0
	for r := range large.Records() {
		web.tally.Expect(r.Raw, r.EventID)
		inflated += len(r.Raw) + 1
	}
	if inflated < size*9/10 {
		t.Fatalf("the object inflates to %d bytes only", inflated)
	}
	if _, err := file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	o := large.Object(corpus.Layouts()[0])
	if err := b.write(t.Context(), o.Key, file, stored); err != nil {
		t.Fatal(err)
	}
	conf := newSettings(t, "", source("big", b, "", ""), web.output(""))
	began := time.Now()
	c := conf.start(t, "run")
	await(t, 50*time.Second, "all records", func() bool { return web.tally.Received() >= records })
	took, peak := time.Since(began), c.Measure()
	t.Logf("%d records, %d MB stored, %d MB inflated: %v, at most %d MiB of memory",
		records, stored/1e6, inflated/1e6, took.Round(time.Millisecond), peak>>20)
	if peak >= ceiling {
		t.Errorf("the agent took %d MiB of memory, at most %d may be", peak>>20, ceiling>>20)
	}
	stopped(t, c)
	web.whole(t)
}

// What is wrong with one source is named, with what to do; the others go on.
func TestE2E_Invariant5_Errors(t *testing.T) {
	good, locked, elsewhere, foreign, denied := newBucket(t), newBucket(t), newBucket(t), newBucket(t), newBucket(t)
	good.server.stranger(t, "trailpoll-stranger", wrongSecret)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{})
	drain(t, good, 2000, web)
	nobody, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(s string, pairs ...string) string { return strings.NewReplacer(pairs...).Replace(s) }
	sources := map[string]struct {
		source string
		kind   string
		remedy string
	}{
		"unknown-bucket": {replaced(source("unknown-bucket", good, "", ""), good.name, "trailpoll-e2e-nowhere"), "no-bucket", "bucket"},
		"wrong-secret":   {replaced(source("wrong-secret", locked, "", ""), secretInEnv, "TRAILPOLL_E2E_WRONG"), "bad-credentials", "secret"},
		"unknown-key":    {replaced(source("unknown-key", foreign, "", ""), `"`+accessKey+`"`, `"AKNOBODY"`), "bad-credentials", "access key"},
		"denied": {replaced(source("denied", denied, "", ""), secretInEnv, "TRAILPOLL_E2E_WRONG",
			`"`+accessKey+`"`, `"trailpoll-stranger"`), "denied", "s3:ListBucket on arn:aws:s3:::" + denied.name},
		"wrong-region": {replaced(source("wrong-region", elsewhere, "", ""), `"`+homeRegion+`"`, `"ap-south-2"`), "wrong-region", homeRegion},
		"unreachable":  {replaced(source("unreachable", good, "elsewhere", ""), good.server.endpoint, "http://"+nobody), "unreachable", "endpoint"},
	}
	parts := []string{source("good", good, "", ""), web.output("")}
	for _, s := range sources {
		parts = append(parts, s.source)
	}
	conf := newSettings(t, "", parts...)
	c := conf.code(t, 1, time.Minute, "run", "--once")
	web.whole(t)
	unfinished := c.entries("not everything was delivered")
	if len(unfinished) != len(sources) {
		t.Errorf("%d sources are named at the end, want %d: %+v", len(unfinished), len(sources), unfinished)
	}
	for name, s := range sources {
		var told *entry
		for _, e := range c.entries("trouble begins; trying on") {
			if e.Source == name {
				told = &e
			}
		}
		if told == nil {
			t.Errorf("%s: nothing is said", name)
			continue
		}
		t.Logf("%s: %s: %s; %s", name, told.Kind, told.Error, told.Remedy)
		if told.Kind != s.kind || !strings.Contains(told.Remedy, s.remedy) {
			t.Errorf("%s: it is said to be %q, remedy %q; want %q, and a remedy that speaks of %q", name, told.Kind, told.Remedy, s.kind, s.remedy)
		}
		if !bytes.Contains(c.Log(), []byte("source "+name+":")) {
			t.Errorf("%s: it is not named at the end", name)
		}
	}
}

// A receiver that refuses the token is named, with what to do.
func TestE2E_Invariant6_WrongToken(t *testing.T) {
	b := newBucket(t)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{})
	refused := newHTTPS(t, "refused", receivertest.HTTPConfig{})
	drain(t, b, 2000, web)
	conf := newSettings(t, "", source("good", b, "", ""), web.output(""),
		strings.Replace(refused.output(""), tokenInEnv, "TRAILPOLL_E2E_WRONG", 1))
	c := conf.start(t, "run")
	await(t, 30*time.Second, "the good output gets all", func() bool { return web.tally.Received() >= 2000 })
	await(t, 30*time.Second, "the other is held", func() bool {
		return c.says("output is held; its lanes stand still until it is back")
	})
	for _, e := range c.entries("trouble begins; trying on") {
		t.Logf("%s: %s: %s; %s", e.Output, e.Kind, e.Error, e.Remedy)
		if e.Output != "refused" || !strings.Contains(e.Error, "401") || !strings.Contains(e.Remedy, "token") {
			t.Errorf("the trouble is %+v", e)
		}
	}
	stopped(t, c)
	web.whole(t)
}

// A second agent on the same state refuses to start, at once and by name.
func TestE2E_Invariant12_SecondAgent(t *testing.T) {
	b := newBucket(t)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{})
	conf := newSettings(t, "", source("good", b, "", ""), web.output(""))
	first := conf.start(t, "run")
	await(t, 20*time.Second, "the first runs", func() bool { return first.says("trailpoll begins") })
	second := conf.code(t, 4, 5*time.Second, "run")
	if said := string(second.Log()); !strings.Contains(said, fmt.Sprintf("process %d", first.Pid())) {
		t.Errorf("the first is not named: %s", said)
	}
	stopped(t, first)
}
