package agent_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Many streams with a backlog, and an output that takes hardly anything, or is
// held: what waits for it takes no room from what the other output waits for.
func TestInvariant6_WhatWaitsForASlowOutputTakesNoRoom(t *testing.T) {
	for _, dies := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "fast", "slow")
			var dead, well atomic.Bool
			w.outputs["slow"].Fail = func(*record.Batch) agenttest.Failure {
				switch {
				case dead.Load():
					return agenttest.Failure{Err: &fault.Error{Kind: fault.Held, Err: errInjected}}
				case !well.Load():
					time.Sleep(20 * time.Second)
				}
				return agenttest.Failure{}
			}
			w.tune = func(c *agent.Config) {
				c.Memory = 16 << 20 // room for 8,000 objects
				for i := range c.Outputs {
					if o := &c.Outputs[i]; o.Name == "slow" {
						o.BatchRecords, o.Connections = 10, 1
					}
				}
			}
			const streams, each = 40, 1200
			for s := range streams {
				for i := range each {
					w.put(stream(s), time.Now().Add(-2*time.Hour-time.Duration(i)*30*time.Second), 1)
				}
			}
			w.during(func() {
				time.Sleep(2 * time.Minute)
				dead.Store(dies)
				time.Sleep(2 * time.Minute)
				if n := len(w.outputs["fast"].Taken()); n < streams*each {
					t.Errorf("slow one dead: %v; the fast one has %d of %d; the slow one %d", dies, n, streams*each, len(w.outputs["slow"].Taken()))
				}
				// What comes now is there within a refresh or two, too.
				for s := range streams {
					w.put(stream(s), time.Now(), 1)
				}
				time.Sleep(10*time.Minute + 30*time.Second) // idle_refresh
				if n := len(w.outputs["fast"].Taken()); n < len(w.want) {
					t.Errorf("slow one dead: %v; the fast one has %d of %d", dies, n, len(w.want))
				}
				// The slow one comes to its senses, and gets all.
				dead.Store(false)
				well.Store(true)
				time.Sleep(10 * time.Minute)
			})
			w.complete("fast", 0)
			w.complete("slow", 0)
		})
	}
}

// The same of a re-sync: it does not wait for the slow one where another output
// could go on.
func TestInvariant6_ResyncForASlowOutputTakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fast", "slow")
		var well atomic.Bool
		w.outputs["slow"].Fail = func(*record.Batch) agenttest.Failure {
			if !well.Load() {
				time.Sleep(20 * time.Second)
			}
			return agenttest.Failure{}
		}
		w.tune = func(c *agent.Config) {
			for i := range c.Outputs {
				if o := &c.Outputs[i]; o.Name == "slow" {
					o.BatchRecords, o.Connections = 10, 1
				}
			}
		}
		const streams, each = 30, 700
		from := time.Now().Add(-60 * day).Truncate(day)
		for s := range streams {
			for i := range each {
				stamp := from.Add(time.Duration(i) * time.Minute)
				key := w.key(stream(s), stamp)
				w.bucket.PutAt(key, w.object(key, 1), stamp.Add(2*time.Minute))
			}
		}
		w.working(func(a *agent.Agent) {
			time.Sleep(time.Second)
			if _, err := a.Resync(t.Context(), agent.ResyncOrder{From: from, To: from.Add(2 * day)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Minute)
			if n := len(w.outputs["fast"].Taken()); n < streams*each {
				t.Errorf("the fast one has %d of %d; the slow one %d", n, streams*each, len(w.outputs["slow"].Taken()))
			}
			well.Store(true)
			time.Sleep(5 * time.Minute)
			all, err := a.Resyncs()
			if err != nil || len(all) != 1 || all[0].State != progress.ResyncDone {
				t.Errorf("%+v, %v", all, err)
			}
		})
		w.complete("fast", 0)
		w.complete("slow", 0)
	})
}
