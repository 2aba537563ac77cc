package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// slowEnds is a checkpoint that takes its time over a re-sync's end.
type slowEnds struct{ store }

func (s slowEnds) Commit(c *progress.Changes) error {
	for i := range c.Resyncs {
		if c.Resyncs[i].Over() {
			time.Sleep(5 * time.Second)
		}
	}
	return s.store.Commit(c)
}

// A run for one re-sync, and one that does all there is to do, end when the end
// of the re-sync is written down and not before: else it counts as not done.
func TestRunsEndAfterTheEndOfAResync(t *testing.T) {
	for _, only := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.put(stream(1), time.Now(), 1)
			w.once()
			at := time.Now().Add(-60 * day).Truncate(day)
			w.old(stream(1), at, 20)
			id := w.resync(agent.ResyncOrder{From: at, To: at.AddDate(0, 0, 1)}).ID
			w.wrap = func(s store) agent.Checkpoint { return slowEnds{s} }
			w.tune = func(c *agent.Config) {
				c.Once = true
				if only {
					c.Only = id
				}
			}
			a, err := agent.New(w.config(w.open()))
			if err != nil {
				t.Fatal(err)
			}
			if r, err := a.Run(t.Context(), t.Context()); err != nil || len(r.Unfinished) > 0 {
				t.Errorf("only %v: %v, %v", only, r.Unfinished, err)
			}
			if all, err := a.Resyncs(); err != nil || all[0].State != progress.ResyncDone {
				t.Errorf("only %v: the run ended before the re-sync did: %+v, %v", only, all, err)
			}
		})
	}
}
