package agent_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// An account of 30,000 objects of backlog beside quiet ones: what is new comes
// through at once, in the huge account and in the others, and the backlog is
// worked off oldest first.
func TestLastHourComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		taken := make(map[string]time.Time)
		var order []string
		w.outputs["siem"].Latency = 200 * time.Millisecond
		w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
			mu.Lock()
			defer mu.Unlock()
			for i := range b.Records {
				k := b.Records[i].Object.Key
				if taken[k].IsZero() {
					taken[k] = time.Now()
					if b.Records[i].Object.Account == stream(0).Account {
						order = append(order, k)
					}
				}
			}
			return agenttest.Failure{}
		}
		w.tune = func(c *agent.Config) {
			c.Sources[0].Start = func(now time.Time) time.Time { return now.Add(-30 * day) }
			c.Outputs[0].BatchRecords, c.Outputs[0].Connections = 10, 1
			c.Memory = 16 << 20
		}
		now := time.Now().Truncate(time.Minute)
		for i := range 30_000 {
			w.put(stream(0), now.Add(-2*time.Hour-time.Duration(i)*80*time.Second), 1)
		}
		fresh := make(map[string]time.Time)
		for n := range 4 {
			fresh[w.put(stream(n), now.Add(-10*time.Minute), 1)] = now
		}
		w.during(func() {
			time.Sleep(2 * time.Minute)
			for range 2 {
				for n := range 4 {
					fresh[w.put(stream(n), time.Now(), 1)] = time.Now()
				}
				time.Sleep(90 * time.Second)
			}
			mu.Lock()
			got := len(taken)
			for k, at := range fresh {
				if was := taken[k]; was.IsZero() || was.Sub(at) > 80*time.Second {
					t.Errorf("%s was sent after %v, with %d objects of backlog sent", k, was.Sub(at), got)
				}
			}
			mu.Unlock()
			if got > 25_000 {
				t.Errorf("the backlog was done already: %d", got)
			}
			time.Sleep(15 * time.Minute)
		})
		w.complete("siem", 0)
		behind := 0
		for i := 1; i < len(order); i++ {
			if fresh[order[i]].IsZero() && fresh[order[i-1]].IsZero() && order[i] < order[i-1] {
				behind++
			}
		}
		if behind > len(order)/5 {
			t.Errorf("%d of %d objects of the backlog came before older ones", behind, len(order))
		}
	})
}

// One object in fifty fails for hours and then heals: nothing behind it waits,
// and nothing is skipped.
func TestInvariant4_Holes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		w.log = &log
		var mu sync.Mutex
		failing := make(map[string]bool)
		healed := false
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			mu.Lock()
			defer mu.Unlock()
			if op == "get" && failing[what] && !healed {
				return failure(fault.Temporary)
			}
			return agenttest.Failure{}
		}
		good := make(map[string]int)
		w.during(func() {
			for i := range 3000 {
				key := w.put(stream(i%5), time.Now(), 1)
				mu.Lock()
				if i%50 == 7 {
					failing[key] = true
				} else {
					good[bucketName+"/"+key+"#0"] = i
				}
				mu.Unlock()
				time.Sleep(6 * time.Second)
			}
			time.Sleep(2 * time.Minute)
			waiting := 0
			taken := w.outputs["siem"].Taken()
			for name := range good {
				if taken[name] == 0 {
					waiting++
				}
			}
			if waiting > 0 {
				t.Errorf("%d objects wait behind others that fail", waiting)
			}
			w.checkWatermarks()
			mu.Lock()
			healed = true
			mu.Unlock()
			time.Sleep(10 * time.Minute)
			w.put(stream(1), time.Now(), 1)
			time.Sleep(15 * time.Minute)
		})
		w.complete("siem", 0)
		// Trouble is said when it begins and when it ends, not in between.
		if begins, ends := strings.Count(log.String(), "trouble begins"), strings.Count(log.String(), "trouble is over"); begins != 1 || ends != 1 {
			t.Errorf("trouble began %d times and ended %d times, want once", begins, ends)
		}
	})
}

// Two outputs that are equally slow keep step however long they are full: each
// object is fetched once for both.
func TestInvariant6_OutputsThatAreEquallySlowKeepStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one", "two")
		w.bucket.Latency = 20 * time.Millisecond
		for _, name := range []string{"one", "two"} {
			w.outputs[name].Latency = 100 * time.Millisecond
		}
		w.tune = func(c *agent.Config) {
			for i := range c.Outputs {
				c.Outputs[i].BatchRecords, c.Outputs[i].Connections = 10, 2
			}
		}
		const objects = 1500
		for i := range objects {
			w.put(stream(i%4), time.Now().Add(-2*time.Hour-time.Duration(i)*20*time.Second), 10)
		}
		w.finish()
		w.complete("one", 0)
		w.complete("two", 0)
		if gets := w.bucket.Gets(""); gets > objects+objects/50 {
			t.Errorf("%d GETs for %d objects and two outputs in step", gets, objects)
		}
	})
}
