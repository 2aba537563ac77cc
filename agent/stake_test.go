package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
)

// Objects of one record keep far more memory than they have bytes. A slow
// output whose few batches are of so many of them does not slow another down.
func TestInvariant6_SmallObjectsForASlowOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fast", "slow")
		w.outputs["slow"].Latency = 20 * time.Second
		w.tune = func(c *agent.Config) {
			for i := range c.Outputs {
				c.Outputs[i].BatchRecords, c.Outputs[i].Connections = 1000, 4
			}
		}
		const streams, each = 6, 5000
		for s := range streams {
			for i := range each {
				w.put(stream(s), time.Now().Add(-2*time.Hour-time.Duration(i)*10*time.Second), 1)
			}
		}
		w.during(func() {
			time.Sleep(4 * time.Minute)
			if n := len(w.outputs["fast"].Taken()); n < streams*each {
				t.Errorf("the fast output has %d of %d; the slow one %d", n, streams*each, len(w.outputs["slow"].Taken()))
			}
		})
	})
}

// An output that waits long for its batches to get full, where a source's share
// of the memory holds no batch of small objects, sends what it has.
func TestInvariant6_NoMemoryForAWholeBatch(t *testing.T) {
	for _, outputs := range [][]string{{"fast", "patient"}, {"patient"}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, outputs...)
			w.tune = func(c *agent.Config) {
				for i := range c.Outputs {
					o := &c.Outputs[i]
					o.BatchRecords, o.Connections = 1000, 4
					if o.Name == "patient" {
						o.BatchWait = 5 * time.Minute
					}
				}
				for i := range 19 {
					s := c.Sources[0]
					s.Name = "other" + string(rune('a'+i))
					s.Bucket = s.Name
					s.Store = new(agenttest.Bucket)
					c.Sources = append(c.Sources, s)
				}
			}
			const streams, each = 2, 1000
			for s := range streams {
				for i := range each {
					w.put(stream(s), time.Now().Add(-2*time.Hour-time.Duration(i)*10*time.Second), 1)
				}
			}
			w.during(func() {
				time.Sleep(4 * time.Minute)
				for _, name := range outputs {
					n := len(w.outputs[name].Taken())
					if name == "fast" && n < streams*each || n < streams*each*9/10 {
						t.Errorf("of %v: %s has %d of %d", outputs, name, n, streams*each)
					}
				}
			})
		})
	}
}
