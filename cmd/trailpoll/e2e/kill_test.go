//go:build linux

package e2e

import (
	"crypto/sha256"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// journal notes in which run of the agent each record came, and so knows whose
// end made it come again.
type journal struct {
	mu       sync.Mutex
	run      int
	last     map[[sha256.Size]byte]int // the run in which a record came last
	repeats  map[int]int               // how many came again that had come last in that run
	within   int                       // ... in one and the same run
	requests int                       // of this run
	due      []time.Time               // when each of them is answered
	records  int                       // of this run
}

func newJournal() *journal {
	return &journal{last: map[[sha256.Size]byte]int{}, repeats: map[int]int{}}
}

// next begins a run.
func (j *journal) next() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.run++
	j.requests, j.records, j.due = 0, 0, nil
	return j.run
}

// take notes records that came together and are answered after the delay.
func (j *journal) take(delay time.Duration, records ...[]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.requests++
	j.records += len(records)
	j.due = append(j.due, time.Now().Add(delay))
	for _, raw := range records {
		h := sha256.Sum256(raw)
		switch last, known := j.last[h]; {
		case known && last == j.run:
			j.within++
		case known:
			j.repeats[last]++
		}
		j.last[h] = j.run
	}
}

// outstanding is how many requests of this run came and were not answered by then.
func (j *journal) outstanding(then time.Time) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, at := range j.due {
		if at.After(then) {
			n++
		}
	}
	return n
}

func (j *journal) came() (requests, records int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.requests, j.records
}

func (j *journal) distinct() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.last)
}

// backlog is objects of 500 records each: so many records in one long drain.
func backlog(records int) iter.Seq[corpus.Object] {
	const each = 500
	return corpus.New(uint64(records)).Objects(corpus.Traffic{
		Accounts: 1, Regions: corpus.Regions()[:1], LogTypes: []string{corpus.CloudTrail},
		From: hoursAgo(72), Slots: records / each, FilesPerSlot: 1, Records: each, OneTrail: true,
	})
}

// drain puts a backlog into a bucket.
func drain(t *testing.T, b *bucket, records int, receivers ...*receiver) {
	t.Helper()
	if _, n := b.putAll(t, backlog(records), receivers...); n != records {
		t.Fatalf("%d records, want %d", n, records)
	}
}

func TestE2E_Invariant1_Kill(t *testing.T) {
	const (
		records      = 100_000
		kills, stops = 50, 10
		connections  = 4
		batchRecords = 100
		bound        = 2 * connections * batchRecords // invariant 2
	)
	b := newBucket(t)
	j := newJournal()
	// Records count from when the request is there: the answer comes late, and
	// to one who is killed meanwhile it doesn't come. That is the worst case.
	web := newHTTPS(t, "web", receivertest.HTTPConfig{Answer: func(q *receivertest.Request) receivertest.Answer {
		delay := 15*time.Millisecond + rand.N(20*time.Millisecond)
		j.take(delay, q.Records...)
		return receivertest.Answer{Delay: delay}
	}})
	drain(t, b, records, web)
	conf := newSettings(t, "", source("drain", b, "", ""), web.output("batch_records = 100\nconnections = 4"))

	var killed, stoppedRuns []int
	var outstanding []int // batches that a kill found, if it found any
	for len(outstanding) < kills || len(stoppedRuns) < stops {
		run := j.next()
		c := conf.start(t, "run")
		after, more := 1+rand.N(12), rand.N(30*time.Millisecond)
		await(t, 30*time.Second, "the drain goes on", func() bool { n, _ := j.came(); return n >= after })
		moment := time.Now().Add(more)
		await(t, 30*time.Second, "a moment with batches outstanding", func() bool {
			now := time.Now()
			return now.After(moment) && j.outstanding(now) > 0
		})
		if len(outstanding) == kills || len(stoppedRuns) < stops && rand.N(6) == 0 {
			stopped(t, c)
			stoppedRuns = append(stoppedRuns, run)
		} else {
			at := time.Now()
			c.Kill()
			killed = append(killed, run)
			if n := j.outstanding(at); n > 0 {
				outstanding = append(outstanding, n)
			}
		}
	}
	if n := j.distinct(); n >= records*19/20 {
		t.Errorf("%d records had come at the last kill: the drain is too short to be killed in its midst", n)
	}
	last := j.next()
	conf.code(t, 0, time.Minute, "run", "--once")

	if n := j.distinct(); n != records {
		t.Errorf("invariant 1: %d records came of %d", n, records)
	}
	sum, most := 0, 0
	for _, run := range killed {
		n := j.repeats[run]
		sum, most = sum+n, max(most, n)
		if n > bound {
			t.Errorf("invariant 2: kill of run %d: %d records repeated, at most %d may be", run, n, bound)
		}
	}
	for _, run := range stoppedRuns {
		if n := j.repeats[run]; n > 0 {
			t.Errorf("invariant 2: SIGTERM of run %d: %d records repeated", run, n)
		}
	}
	if j.within > 0 || j.repeats[last] > 0 {
		t.Errorf("invariant 2: %d records came twice in one run", j.within+j.repeats[last])
	}
	t.Logf("%d kills, %d of them with %d to %d batches outstanding: %d of %d records repeated, at most %d after one kill (bound %d); %d times SIGTERM",
		len(killed), len(outstanding), slices.Min(outstanding), slices.Max(outstanding), sum, records, most, bound, len(stoppedRuns))
	// By their bytes, too: nothing lost, nothing altered.
	if got := web.tally.Result(); got.Altered > 0 {
		t.Errorf("altered: %v", got)
	}
}

// The same over syslog, where nobody answers: what was sent within
// confirm_delay, and is not confirmed, comes again.
func TestE2E_Invariant1_KillTCP(t *testing.T) {
	const records, kills, stops = 20_000, 8, 4
	b := newBucket(t)
	j := newJournal()
	var sys *receiver
	var n atomic.Int64
	sys = newSyslog(t, "sys", receivertest.SyslogConfig{
		Take: func(raw []byte) {
			if n.Add(1)%50 == 0 {
				<-time.After(4 * time.Millisecond) // a receiver that is not the quickest
			}
			m, err := receivertest.ParseRFC5424(raw)
			if err != nil {
				t.Error(err)
				return
			}
			j.take(0, m.Text)
			sys.take(m.Text)
		},
	})
	sys.cut = true
	drain(t, b, records, sys)
	conf := newSettings(t, "", source("drain", b, "", ""), sys.output(""))
	some := func(n int) func() bool {
		return func() bool { _, came := j.came(); return came >= n || j.distinct() == records }
	}
	// A connection outlives its sender: what waits in it belongs to that run.
	read := func() {
		t.Helper()
		await(t, 30*time.Second, "what was sent is read", func() bool { return openConnections(t, sys.syslog.Addr()) == 0 })
	}
	var ordered []int
	for i := range kills + stops {
		run := j.next()
		c := conf.start(t, "run")
		await(t, 30*time.Second, "the drain goes on", some(1+rand.N(1000)))
		if i%3 == 2 {
			stopped(t, c)
			ordered = append(ordered, run)
		} else {
			c.Kill()
		}
		read()
	}
	ordered = append(ordered, j.next())
	conf.code(t, 0, time.Minute, "run", "--once")
	read()
	got := sys.tally.Result()
	if got.Lost > 0 || got.Altered > 0 {
		t.Errorf("invariant 1: %v", got)
	}
	for _, run := range ordered {
		if n := j.repeats[run]; n > 0 {
			t.Errorf("invariant 2: run %d ended in order: %d records repeated", run, n)
		}
	}
	t.Logf("%d kills, %d ends in order: %v", kills, len(ordered), got)
}

// The first signal stops in order, the second at once.
func TestE2E_Invariant1_Signals(t *testing.T) {
	b := newBucket(t)
	hangs := make(chan struct{}, 64)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{Answer: func(*receivertest.Request) receivertest.Answer {
		hangs <- struct{}{}
		return receivertest.Answer{Delay: time.Minute}
	}})
	drain(t, b, 500, web)
	conf := newSettings(t, `drain_timeout = "50s"`, source("drain", b, "", ""), web.output(""))
	c := conf.start(t, "run")
	<-hangs
	c.signal(syscall.SIGTERM)
	await(t, 10*time.Second, "the first signal is heard", func() bool { return len(c.entries("stopping")) == 1 })
	c.signal(syscall.SIGTERM)
	if code := c.wait(10 * time.Second); code != 1 {
		t.Errorf("exit %d after a second signal, want 1", code)
	}
}
