package agent_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
)

// A first run over many streams has less room than their first pages may take.
// Whoever waits for room goes on when there is some, not when a clock says so.
func TestListingsThatWaitForRoomAreCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bucket.Latency = 10 * time.Millisecond
		w.tune = func(c *agent.Config) {
			c.Memory, c.Downloads = 16<<20, 64
			c.Outputs[0].BatchWait = time.Millisecond
		}
		const streams, each = 300, 8
		for s := range streams {
			for i := range each {
				w.put(stream(s), time.Now().Add(-3*time.Hour-time.Duration(i)*time.Minute), 1)
			}
		}
		began := time.Now()
		w.once()
		w.complete("siem", 0)
		// 64 downloads, 2,400 objects: 380 ms; and a tenth of that again for
		// the first pages, the discovery and the end.
		if took := time.Since(began); took > 800*time.Millisecond {
			t.Errorf("it took %v: somebody waited for a clock", took)
		}
	})
}

// Streams take turns, of a few objects each: one with very many does not keep
// the others waiting, and what is settled together is of few streams.
func TestStreamsTakeTurnsOfAFewObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		var got []string // accounts, in the order of their downloads
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			if op != "get" {
				return agenttest.Failure{}
			}
			mu.Lock()
			got = append(got, strings.Split(what, "/")[1])
			first := len(got) == 1
			mu.Unlock()
			if first { // all streams are listed meanwhile
				time.Sleep(30 * time.Second)
			}
			return agenttest.Failure{}
		}
		w.tune = func(c *agent.Config) { c.Downloads = 1 }
		for s := range 5 {
			n := 40
			if s == 0 {
				n = 400
			}
			for i := range n {
				w.put(stream(s), time.Now().Add(-3*time.Hour-time.Duration(i)*time.Second), 1)
			}
		}
		w.during(func() {
			time.Sleep(10 * time.Minute)
		})
		w.complete("siem", 0)
		turns, run := 0, 0
		for i, id := range got[:5*40] {
			if i > 0 && id == got[i-1] {
				if run++; run == 8 && slices.ContainsFunc(got[i:5*40], func(x string) bool { return x != id }) {
					t.Fatalf("object %d: %s has had 9 in a row while others waited", i, id)
				}
				continue
			}
			turns, run = turns+1, 0
		}
		if turns > 5*40/5 {
			t.Errorf("%d turns for %d objects", turns, 5*40)
		}
	})
}

// A run that is to end does not wait for a batch to get full when nothing more
// is coming.
func TestOnceSendsTheLastBatchAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "siem", "archive")
		w.tune = func(c *agent.Config) {
			for i := range c.Outputs {
				c.Outputs[i].BatchWait = 5 * time.Minute
			}
		}
		for i := range 250 { // two batches and a half
			w.put(stream(i%3), time.Now().Add(-3*time.Hour), 1)
		}
		began := time.Now()
		w.once()
		w.complete("siem", 0)
		w.complete("archive", 0)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Under a cap, listings over the last hour that wait for their turn keep no
// room: a backlog goes on beside them.
func TestInvariant5_BacklogUnderACap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bucket.Latency = 20 * time.Millisecond
		w.tune = func(c *agent.Config) {
			c.Memory = 16 << 20 // room for 8,000 objects
			c.Sources[0].MaxListsPerMinute = 60
		}
		const streams, each = 60, 1500
		for s := range streams {
			for i := range each {
				w.put(stream(s), time.Now().Add(-2*time.Hour-time.Duration(i)*40*time.Second), 1)
			}
		}
		w.during(func() { time.Sleep(15 * time.Minute) }) // 900 LISTs, for 120 pages
		w.complete("siem", 0)
	})
}
