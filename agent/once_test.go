package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// onceWaiting runs an agent until all is done, with an output that waits five
// minutes for a batch to get full, and returns what could not be finished.
func (w *world) onceWaiting(records int, tune func(*agent.Config)) []string {
	w.tune = func(c *agent.Config) {
		for i := range c.Outputs {
			c.Outputs[i].BatchWait, c.Outputs[i].BatchRecords = 5*time.Minute, records
		}
		tune(c)
	}
	unfinished := w.once().Unfinished
	w.complete("siem", 0)
	return unfinished
}

// An output that is dead, or a source, does not keep a run that is to end from
// sending what else there is.
func TestInvariant6_OnceSendsTheLastBatchBesideADeadOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "siem", "dead")
		w.outputs["dead"].Fail = func(*record.Batch) agenttest.Failure {
			return agenttest.Failure{Err: &fault.Error{Kind: fault.Held, Err: errInjected}}
		}
		for i := range 250 {
			w.put(stream(i%3), time.Now().Add(-3*time.Hour), 1)
		}
		if un := w.onceWaiting(100, func(*agent.Config) {}); len(un) != 1 {
			t.Errorf("unfinished: %v", un)
		}
	})
}

// The same, beside a source whose bucket goes away.
func TestInvariant5_OnceSendsTheLastBatchBesideABadSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 250 {
			w.put(stream(i%3), time.Now().Add(-3*time.Hour), 1)
		}
		began := time.Now()
		un := w.onceWaiting(100, func(c *agent.Config) {
			bad := c.Sources[0]
			bad.Name, bad.Bucket = "bad", "bad"
			bad.Organizations, bad.Accounts = []string{"none"}, []string{"111122223333"}
			bad.LogTypes, bad.Regions = []string{"CloudTrail"}, []string{"eu-central-1"}
			bad.Store = &agenttest.Bucket{Fail: func(_, what string) agenttest.Failure {
				if what == "AWSLogs/" {
					return agenttest.Failure{} // it is there when it is met
				}
				return agenttest.Failure{Err: &fault.Error{Kind: fault.NoBucket, Err: errInjected}}
			}}
			c.Sources = append(c.Sources, bad)
		})
		if took := time.Since(began); len(un) != 1 || took > 10*time.Second {
			t.Errorf("it took %v; unfinished: %v", took, un)
		}
	})
}

// Listing takes longer than a run waits for an output that makes no progress:
// one that waits for its batch to get full makes none, and is not stuck.
func TestOnceListsForLongWhileABatchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 250 {
			w.put(stream(i%60), time.Now().Add(-3*time.Hour), 1)
		}
		if un := w.onceWaiting(1000, func(c *agent.Config) { c.Sources[0].MaxListsPerMinute = 20 }); len(un) > 0 {
			t.Errorf("unfinished: %v", un)
		}
	})
}

// A listing waits until what it found is settled, and that waits for a batch
// that only the listing could fill.
func TestOnceSendsWhatAListingWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 5000 {
			w.put(stream(1), time.Now().Add(-3*time.Hour-time.Duration(i)*time.Second), 1)
		}
		began := time.Now()
		un := w.onceWaiting(10000, func(*agent.Config) {})
		if took := time.Since(began); len(un) > 0 || took > 10*time.Second {
			t.Errorf("it took %v; unfinished: %v", took, un)
		}
	})
}
