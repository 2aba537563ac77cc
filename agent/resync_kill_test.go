package agent_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// killed runs an agent for a while and kills it: nothing more is committed,
// but perhaps the commit under way.
func (w *world) killed(after time.Duration, lastOne bool) {
	w.t.Helper()
	w.dies(after, lastOne, nil, func(*agent.Config) {})
}

// A re-sync of 30 days beyond the late horizon, beside live traffic, killed
// three times: each record that was missing arrives, none twice beyond the
// bound of a kill; what is new comes within refresh and 5 s; and a second run
// of the same window sends nothing.
func TestInvariant1And2_ResyncBesideLiveTraffic(t *testing.T) {
	objects := 100_000
	if testing.Short() || raced {
		objects = 10_000
	}
	const (
		streams = 5
		days    = 30
		refresh = 30 * time.Second
		bound   = 2 * 2 * 100 // of a kill: connections and batch_records of the world's output
	)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) {
			c.Sources[0].Refresh = refresh
			c.Outputs[0].BatchRecords = 100
		}
		w.bucket.Latency = 30 * time.Millisecond
		o := w.outputs["siem"]
		o.Latency = 40 * time.Millisecond
		var mu sync.Mutex
		put := make(map[string]time.Time) // of live objects, by key
		came := make(map[string]time.Time)
		o.Fail = func(b *record.Batch) agenttest.Failure {
			mu.Lock()
			defer mu.Unlock()
			for i := range b.Records {
				key := b.Records[i].Object.Key
				if _, ok := put[key]; ok && came[key].IsZero() {
					came[key] = time.Now()
				}
			}
			return agenttest.Failure{}
		}
		for s := range streams {
			w.put(stream(s), time.Now(), 1)
		}
		w.once()

		from := time.Now().Add(-90 * day).Truncate(day)
		step := days * day * streams / time.Duration(objects)
		for i := range objects {
			stamp := from.Add(time.Duration(i/streams) * step)
			key := w.key(stream(i%streams), stamp)
			w.bucket.PutAt(key, w.object(key, 1), stamp.Add(2*time.Minute))
		}
		order := agent.ResyncOrder{From: from, To: from.Add(days * day)}
		w.resync(order)

		// Live traffic, as long as this test goes on.
		live, stopLive := context.WithCancel(context.Background())
		var traffic sync.WaitGroup
		traffic.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-time.After(700 * time.Millisecond):
				case <-live.Done():
					return
				}
				mu.Lock()
				key := w.key(stream(n%streams), time.Now())
				put[key] = time.Now()
				mu.Unlock()
				w.bucket.Put(key, w.liveObject(key, &mu))
			}
		})
		worst := time.Duration(0)
		segment := func(f func()) {
			began := time.Now()
			f()
			mu.Lock()
			defer mu.Unlock()
			for key, at := range put {
				end := came[key]
				if end.IsZero() {
					end = time.Now()
				}
				if at.Before(began) {
					at = began // nobody was there to see it
				}
				if lag := end.Sub(at); lag > worst && end.After(began) {
					worst = lag
				}
			}
		}
		rng := rand.New(rand.NewPCG(3, 14))
		takes := time.Duration(objects) * 3800 * time.Microsecond // all of it, about: eight downloads of 30 ms
		for i := range 3 {
			segment(func() { w.killed(takes/8+time.Duration(rng.Int64N(int64(takes/8))), i%2 == 0) })
			all := w.memoryResyncs()
			t.Logf("killed: %+v", all[0].Count)
			if all[0].State == progress.ResyncDone {
				t.Error("it is done too soon to be killed")
			}
			time.Sleep(10 * time.Second)
		}
		segment(func() {
			w.during(func() {
				for w.memoryResyncs()[0].State != progress.ResyncDone {
					time.Sleep(time.Second)
				}
				stopLive()
				traffic.Wait()
				time.Sleep(2 * time.Minute)
			})
		})
		w.complete("siem", 3*bound)
		t.Logf("worst lag %v; %+v", worst, w.memoryResyncs()[0])
		if worst > refresh+5*time.Second {
			t.Errorf("what is new lagged by %v, more than refresh and 5 s", worst)
		}
		taken := 0
		for _, n := range o.Taken() {
			taken += n
		}
		w.resync(order)
		w.once()
		again := 0
		for _, n := range o.Taken() {
			again += n
		}
		if c := w.memoryResyncs()[1].Count; again != taken || c.Objects != 0 || c.Passed != int64(objects) {
			t.Errorf("the second run sent %d records: %+v", again-taken, c)
		}
	})
}

// liveObject is object where others put objects at the same time.
func (w *world) liveObject(key string, mu *sync.Mutex) []byte {
	mu.Lock()
	defer mu.Unlock()
	return w.object(key, 1)
}

// memoryResyncs returns the re-syncs of a state in memory that an agent uses.
func (w *world) memoryResyncs() []progress.Resync {
	all, err := w.memory.Resyncs()
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// However a re-sync and a listing of the same lane meet, and whenever the agent
// is killed or the re-sync cancelled: each record arrives once, and no
// watermark passes one that did not.
func TestInvariant4_ResyncAndListingMeet(t *testing.T) {
	for _, seed := range seeds(t, 40) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "siem", "lake")
			w.disk = seed%4 == 3
			rng := rand.New(rand.NewPCG(seed, 41))
			w.bucket.Latency = time.Duration(rng.IntN(200)) * time.Millisecond
			for _, o := range w.outputs {
				o.Latency = time.Duration(rng.IntN(400)) * time.Millisecond
			}
			now := time.Now()
			for s := range 3 {
				for range 60 {
					age := time.Duration(rng.Int64N(int64(23 * time.Hour)))
					key := w.key(stream(s), now.Add(-age))
					w.bucket.PutAt(key, w.object(key, 1+rng.IntN(40)), now.Add(-age).Add(time.Minute))
				}
			}
			kills := 0
			for n := range 3 {
				// The window is one that the listing goes over at the same time.
				w.resync(agent.ResyncOrder{From: now.Add(-23 * time.Hour).Truncate(time.Minute), To: now.Add(-time.Duration(rng.IntN(60)) * time.Minute)})
				switch rng.IntN(3) {
				case 0:
					w.killed(time.Duration(rng.IntN(4000))*time.Millisecond, rng.IntN(2) == 0)
					kills++
				case 1:
					w.cancelDuring(progress.ResyncID(n+1), time.Duration(rng.IntN(2000))*time.Millisecond)
				default:
					w.during(func() { time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond) })
				}
				w.checkWatermarks()
			}
			if r := w.once(); len(r.Unfinished) > 0 {
				t.Errorf("seed %d: unfinished: %v", seed, r.Unfinished)
			}
			for output := range w.outputs {
				w.complete(output, kills*2*2*100)
			}
			s := w.open()
			defer s.Close()
			all, err := s.Resyncs()
			if err != nil || len(all) != 3 {
				t.Errorf("seed %d: %v, %v", seed, all, err)
			}
			for _, r := range all {
				if !r.Over() {
					t.Errorf("seed %d: %+v", seed, r)
				}
				if heads, err := s.ResyncHeads(r.ID); len(heads) != 0 || err != nil {
					t.Errorf("seed %d: re-sync %v has left lanes: %v, %v", seed, r.ID, heads, err)
				}
			}
			if t.Failed() {
				t.Logf("seed %d, %d kills", seed, kills)
			}
		})
	}
}

// cancelDuring runs an agent, cancels a re-sync after a while, and stops it in
// order a little later.
func (w *world) cancelDuring(id progress.ResyncID, after time.Duration) {
	w.t.Helper()
	w.working(func(a *agent.Agent) {
		time.Sleep(after)
		if _, err := a.CancelResync(context.Background(), id); err != nil {
			w.t.Errorf("cancelling: %v", err)
		}
		time.Sleep(time.Second)
	})
}

// What a cancelled re-sync has on its way is taken over by the next one of the
// same window: if it does not arrive, that one sends it again.
func TestInvariant1_ResyncTakesOverFromCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := &agenttest.Stream{Delay: time.Minute}
		w.streams = map[string]*agenttest.Stream{"siem": s}
		w.outputs["siem"] = &s.Output
		_, order := w.longAgo(100)
		first := w.resync(order)
		w.resync(order)
		w.working(func(a *agent.Agent) {
			time.Sleep(20 * time.Second) // all of it is written, and nothing confirmed
			if _, err := a.CancelResync(t.Context(), first.ID); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Second)
			s.Break() // and nothing of it has arrived
			time.Sleep(10 * time.Minute)
		})
		w.complete("siem", 0)
		all := w.memoryResyncs()
		if all[0].State != progress.ResyncCancelled || all[1].State != progress.ResyncDone || all[1].Count.Objects != 100 {
			t.Errorf("%+v", all)
		}
	})
}
