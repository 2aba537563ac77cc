package agent_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// A gap is seen: each state of a day where it belongs, also long after what
// was settled is forgotten.
func TestCoverage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "siem", "late")
		w.tune = func(c *agent.Config) {
			c.Sources[0].Start = func(now time.Time) time.Time { return now.Add(-5 * 24 * time.Hour) }
		}
		day := 24 * time.Hour
		noon := time.Now().Truncate(day).Add(-day).Add(12 * time.Hour)
		for _, ago := range []int{4, 3, 1, 0} {
			for range 3 {
				w.put(stream(1), noon.Add(-time.Duration(ago)*day), 2)
			}
		}
		w.put(stream(2), noon, 1)
		w.bucket.Put(w.key(stream(2), noon.Add(-3*day)), []byte("no gzip"))
		var held atomic.Bool
		w.outputs["late"].Fail = heldWhile(&held)
		states := func(a *agent.Agent, s progress.Stream, days int) (all []agent.DayState, objects []int64) {
			t.Helper()
			c, err := a.Coverage(days)
			if err != nil || len(c.Days) != days || len(c.Rows) != 2 {
				t.Fatalf("%+v, %v", c, err)
			}
			for _, r := range c.Rows {
				if r.Account != s.Account {
					continue
				}
				for _, x := range r.Cells {
					all, objects = append(all, x.State), append(objects, x.Objects)
				}
			}
			return all, objects
		}
		want := func(got []agent.DayState, want ...agent.DayState) {
			t.Helper()
			if len(got) != len(want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("got %v, want %v", got, want)
					return
				}
			}
		}
		const settled, empty, parked, missing, not = agent.DaySettled, agent.DayEmpty, agent.DayParked, agent.DayMissing, agent.DayNotCollected
		w.working(func(a *agent.Agent) {
			time.Sleep(time.Minute)
			got, objects := states(a, stream(1), 8)
			want(got, not, not, settled, settled, empty, settled, settled, empty)
			if objects[2] != 3 || objects[4] != 0 {
				t.Errorf("objects %v", objects)
			}
			got, _ = states(a, stream(2), 8)
			want(got, not, not, empty, parked, empty, empty, settled, empty)

			// An output that is held misses what comes, and then what follows.
			held.Store(true)
			w.put(stream(1), time.Now(), 1)
			time.Sleep(day + 2*time.Hour)
			got, _ = states(a, stream(1), 3)
			want(got, settled, missing, missing)
			held.Store(false)
			time.Sleep(time.Hour)
			got, _ = states(a, stream(1), 3)
			want(got, settled, settled, empty)

			// Long after: nothing of it is remembered one by one.
			time.Sleep(60 * day)
			got, objects = states(a, stream(1), 70)
			want(got[70-61-7:70-61], not, settled, settled, empty, settled, settled, settled)
			if objects[70-61-6] != 3 {
				t.Errorf("objects %v", objects[70-61-7:70-61])
			}
		})
	})
}
