package agent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// resync orders a re-sync without an agent that runs.
func (w *world) resync(o agent.ResyncOrder) agent.ResyncStatus {
	w.t.Helper()
	store := w.open()
	defer store.Close()
	a, err := agent.New(w.config(store))
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := a.Resync(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// resyncs returns what the checkpoint knows of re-syncs.
func (w *world) resyncs() []progress.Resync {
	w.t.Helper()
	store := w.open()
	defer store.Close()
	all, err := store.Resyncs()
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// only runs an agent for one re-sync.
func (w *world) only(id progress.ResyncID) agent.Result {
	w.t.Helper()
	store := w.open()
	defer store.Close()
	cfg := w.config(store)
	cfg.Only = id
	a, err := agent.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := a.Run(context.Background(), context.Background())
	if err != nil {
		w.t.Errorf("Run: %v", err)
	}
	return r
}

// put old writes objects with stamps of a day long past, written then.
func (w *world) old(s progress.Stream, at time.Time, objects int) {
	for i := range objects {
		stamp := at.Add(time.Duration(i) * 5 * time.Minute)
		key := w.key(s, stamp)
		w.bucket.PutAt(key, w.object(key, 3), stamp.Add(2*time.Minute))
	}
}

// What is missing is brought, from before start and from beyond the late
// horizon, and a second run of the same window sends nothing.
func TestResyncBringsWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		now := time.Now()
		for _, age := range []time.Duration{100 * day, 99 * day, 40 * day, 10 * day} {
			w.old(stream(1), now.Add(-age), 20)
			w.old(stream(2), now.Add(-age), 5)
		}
		kept := w.want
		w.want = make(map[string]string)
		w.old(stream(1), now.Add(-10*time.Hour), 10)
		w.once()
		w.complete("siem", 0)
		for name, raw := range kept {
			w.want[name] = raw
		}
		o := agent.ResyncOrder{From: now.Add(-101 * day), To: now.Add(-9 * day)}
		first := w.resync(o)
		if r := w.once(); len(r.Unfinished) > 0 {
			t.Error(r.Unfinished)
		}
		w.complete("siem", 0)
		all := w.resyncs()
		if len(all) != 1 || all[0].State != progress.ResyncDone || all[0].Count.Objects != 100 || all[0].Count.Passed != 0 {
			t.Errorf("re-syncs %+v", all)
		}
		gets := w.bucket.Gets("")
		again := w.resync(o)
		if again.ID != first.ID+1 {
			t.Errorf("ids %v and %v", first.ID, again.ID)
		}
		w.only(again.ID)
		w.complete("siem", 0)
		all = w.resyncs()
		if all[1].State != progress.ResyncDone || all[1].Count.Objects != 0 || all[1].Count.Passed != 100 {
			t.Errorf("the second run: %+v", all[1])
		}
		if n := w.bucket.Gets("") - gets; n > 0 {
			t.Errorf("the second run made %d GETs", n)
		}
	})
}
