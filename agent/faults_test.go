package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// faultyCheckpoint fails commits in both ways, and checks what each says.
type faultyCheckpoint struct {
	store
	t *testing.T
	// delay is how long a commit takes, before or after it is done.
	delay func() time.Duration

	mu    sync.Mutex
	fail  func() agenttest.Failure
	heads map[progress.Lane]progress.Head
}

func (f *faultyCheckpoint) Commit(c *progress.Changes) error {
	if f.delay != nil {
		time.Sleep(f.delay())
		defer time.Sleep(f.delay())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var x agenttest.Failure
	if f.fail != nil {
		x = f.fail()
	}
	if x.Err != nil && !x.Done {
		return x.Err
	}
	for _, h := range c.Heads {
		if was := f.heads[h.Lane]; h.Head.Watermark < was.Watermark || h.Head.Pruned < was.Pruned {
			f.t.Errorf("the head of %v goes back: %+v to %+v", h.Lane, was, h.Head)
		}
		if f.heads == nil {
			f.heads = make(map[progress.Lane]progress.Head)
		}
		f.heads[h.Lane] = h.Head
	}
	if err := f.store.Commit(c); err != nil {
		return err
	}
	return x.Err
}

// place takes a record's name apart.
func place(name string) (s progress.Stream, position string, index int) {
	key, n, _ := strings.Cut(strings.TrimPrefix(name, bucketName+"/"), "#")
	parts := strings.SplitN(key, "/", 5)
	index, _ = strconv.Atoi(n)
	return progress.Stream{Account: parts[1], LogType: parts[2], Region: parts[3]}, parts[4], index
}

// states returns how every object that was written stands in an output's lanes.
func (w *world) states(s store, output string) map[progress.Stream]map[string]progress.State {
	w.t.Helper()
	all := make(map[progress.Stream]map[string]progress.State)
	for name := range w.want {
		st, p, _ := place(name)
		if all[st] == nil {
			all[st] = make(map[string]progress.State)
		}
		all[st][p] = progress.State{}
	}
	for st, objects := range all {
		positions := slices.Sorted(maps.Keys(objects))
		states, err := s.Lookup(progress.Lane{Source: agent.SourceID(bucketName, ""), Stream: st, Output: output}, positions, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, p := range positions {
			objects[p] = states[i]
		}
	}
	return all
}

// checkWatermarks checks invariant 4 in the state as it is kept: at or below a
// lane's watermark every object of the bucket is settled or parked.
func (w *world) checkWatermarks() {
	w.t.Helper()
	s := w.open()
	defer s.Close()
	for output := range w.outputs {
		heads, err := s.Heads(agent.SourceID(bucketName, ""), output)
		if err != nil {
			w.t.Fatal(err)
		}
		for st, objects := range w.states(s, output) {
			for p, state := range objects {
				if p <= heads[st].Watermark && state.Standing < progress.Parked {
					w.t.Errorf("invariant 4: %s/%s is below the watermark %s and not settled", st, p, heads[st].Watermark)
				}
			}
		}
	}
}

// uncommitted returns how many of the records that an output has taken, beyond
// those counted in before, would be sent again if the agent died now.
func (w *world) uncommitted(output string, before map[string]int) (n int) {
	w.t.Helper()
	s := w.open()
	defer s.Close()
	states := w.states(s, output)
	for name, times := range w.outputs[output].Taken() {
		st, p, i := place(name)
		if state := states[st][p]; times > before[name] && state.Standing < progress.Parked && !state.Acked.Has(i) {
			n++
		}
	}
	return n
}

var errInjected = errors.New("injected")

// Each way in which listing, reading, sending and committing can fail, lost or
// done with the answer lost: everything arrives, and only what was sent and
// not answered arrives twice.
func TestInvariant1And2_EveryFailurePoint(t *testing.T) {
	for _, op := range []string{"list", "get", "cut", "send", "commit"} {
		for _, done := range []bool{false, true} {
			if done && (op == "list" || op == "cut") {
				continue // reading has no effect whose answer could be lost
			}
			for seed := range uint64(5) {
				t.Run(fmt.Sprintf("%s/done=%v/%d", op, done, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { failurePoint(t, op, done, seed, false) })
				})
				t.Run(fmt.Sprintf("resync/%s/done=%v/%d", op, done, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { failurePoint(t, op, done, seed, true) })
				})
			}
		}
	}
}

// failurePoint is one of them; resync tells whether it is a re-sync that is to
// bring everything, and not a listing.
func failurePoint(t *testing.T, op string, done bool, seed uint64, resync bool) {
	w := newWorld(t)
	armed := false
	rng := rand.New(rand.NewPCG(seed, 7))
	var mu sync.Mutex
	failures := 0
	hit := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if armed && failures < 40 && rng.IntN(4) == 0 {
			failures++
			return true
		}
		return false
	}
	again := 0
	w.bucket.Fail = func(o, _ string) agenttest.Failure {
		switch {
		case op == "cut" && o == "get":
			if hit() {
				return agenttest.Failure{Cut: 20}
			}
			return agenttest.Failure{}
		case o != op || !hit():
			return agenttest.Failure{}
		}
		return agenttest.Failure{Err: &fault.Error{Kind: fault.Temporary, Err: errInjected}, Done: done}
	}
	w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
		if op != "send" || !hit() {
			return agenttest.Failure{}
		}
		if done {
			mu.Lock()
			again += len(b.Records)
			mu.Unlock()
		}
		return agenttest.Failure{Err: &fault.Error{Kind: fault.Temporary, Err: errInjected}, Done: done}
	}
	w.disk = seed == 0
	w.wrap = func(s store) agent.Checkpoint {
		return &faultyCheckpoint{store: s, t: t, fail: func() agenttest.Failure {
			if op != "commit" || !hit() {
				return agenttest.Failure{}
			}
			return agenttest.Failure{Err: errInjected, Done: done}
		}}
	}
	now := time.Now()
	for s := range 4 {
		for i := range 30 {
			stamp := now.Add(-time.Duration(i) * 20 * time.Minute)
			if resync {
				stamp = stamp.Add(-60 * day)
			}
			key := w.key(stream(s), stamp)
			w.bucket.PutAt(key, w.object(key, 1+rng.IntN(150)), stamp)
		}
	}
	if resync {
		w.resync(agent.ResyncOrder{From: now.Add(-62 * day), To: now})
	}
	armed = true
	w.finish()
	if op == "cut" {
		// Some are cut four times in a row, and parked: they heal.
		w.bucket.Fail = nil
		w.finish()
	}
	if p := w.parked(); len(p) > 0 {
		t.Errorf("parked: %v", parkReasons(p))
	}
	w.complete("siem", again)
	w.checkWatermarks()
}

// The agent dies at any instant: the last commit is lost, or just made; what
// was on its way is gone. Every record arrives, and each crash repeats at most
// what may be sent and not committed.
func TestInvariant1And2_Crash(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				rng := rand.New(rand.NewPCG(seed, 11))
				w.outputs["siem"].Latency = 300 * time.Millisecond
				w.disk = seed < 3
				now := time.Now()
				for s := range 3 {
					for i := range 15 {
						w.put(stream(s), now.Add(-time.Duration(i)*20*time.Minute), 1+rng.IntN(900))
					}
				}
				const bound = 2 * 2 * 100 // 2 × connections × batch_records
				crashes, most := 0, 0
				for ; crashes < 30; crashes++ {
					before := w.outputs["siem"].Taken()
					if w.crash(time.Duration(rng.IntN(5000))*time.Millisecond, rng.IntN(2) == 0) {
						break
					}
					n := w.uncommitted("siem", before)
					most = max(most, n)
					if n > bound {
						t.Errorf("invariant 2: crash %d will repeat %d records, at most %d allowed", crashes, n, bound)
					}
					w.checkWatermarks()
				}
				t.Logf("%d crashes; the worst repeats %d records", crashes, most)
				w.finish()
				w.complete("siem", (crashes+1)*bound)
				w.checkWatermarks()
			})
		})
	}
}

// crash runs an agent until all is done, with commits that take their time, and
// kills it as dies does. It reports whether the agent was done before.
func (w *world) crash(after time.Duration, lastOne bool) (done bool) {
	w.t.Helper()
	slow := rand.New(rand.NewPCG(uint64(after), 17))
	return w.dies(after, lastOne, func() time.Duration {
		return time.Duration(slow.IntN(1000)) * time.Millisecond
	}, func(c *agent.Config) { c.Once = true })
}

// dies runs an agent and kills it: after that time nothing more is committed,
// but perhaps for the commit under way. It reports whether the agent had ended
// by itself before.
func (w *world) dies(after time.Duration, lastOne bool, delay func() time.Duration, tune func(*agent.Config)) (done bool) {
	w.t.Helper()
	s := w.open()
	defer s.Close()
	var dead, last bool
	var mu sync.Mutex
	ctx, abort := context.WithCancel(context.Background())
	defer abort()
	cfg := w.config(&faultyCheckpoint{store: s, t: w.t, delay: delay, fail: func() agenttest.Failure {
		mu.Lock()
		defer mu.Unlock()
		if !dead {
			return agenttest.Failure{}
		}
		f := agenttest.Failure{Err: errInjected, Done: lastOne && !last}
		last = true
		return f
	}})
	tune(&cfg)
	a, err := agent.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	death := time.AfterFunc(after, func() {
		mu.Lock()
		dead = true
		mu.Unlock()
		abort()
	})
	defer death.Stop()
	r, err := a.Run(ctx, ctx)
	if err != nil {
		w.t.Errorf("Run: %v", err)
	}
	return len(r.Unfinished) == 0 && ctx.Err() == nil
}

// After an orderly stop nothing is repeated.
func TestInvariant2_OrderlyStop(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			rng := rand.New(rand.NewPCG(seed, 13))
			w.outputs["siem"].Latency = 700 * time.Millisecond
			now := time.Now()
			for s := range 3 {
				for i := range 10 {
					w.put(stream(s), now.Add(-time.Duration(i)*20*time.Minute), 1+rng.IntN(900))
				}
			}
			for range 10 {
				w.during(func() { time.Sleep(time.Duration(rng.IntN(6000)) * time.Millisecond) })
			}
			w.once()
			w.complete("siem", 0)
		})
	}
}

// An object whose key sorts days before the watermark is found by a sweep, and
// delivered once.
func TestInvariant3_LateObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 3)
		w.during(func() {
			time.Sleep(time.Hour)
			w.complete("siem", 0)
			w.put(stream(1), time.Now().Add(-20*time.Minute), 2) // the tail's look-back finds it
			time.Sleep(11 * time.Minute)
			w.complete("siem", 0)
			w.put(stream(1), time.Now().Add(-20*time.Hour), 2) // the hourly sweep
			time.Sleep(75 * time.Minute)
			w.complete("siem", 0)
			w.put(stream(1), time.Now().Add(-3*24*time.Hour), 2) // the daily one
			time.Sleep(25 * time.Hour)
			w.complete("siem", 0)
			time.Sleep(60 * time.Hour)
			w.complete("siem", 0)
		})
	})
}

// What appears while the agent is down is found however long that lasts, late
// objects included: a sweep reaches back from the last completed one.
func TestInvariant3_LateWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 3)
		w.during(func() { time.Sleep(time.Minute) })
		for range 25 {
			time.Sleep(24 * time.Hour)
			w.put(stream(1), time.Now().Add(-29*24*time.Hour), 2)
			w.put(stream(1), time.Now(), 2)
		}
		w.during(func() { time.Sleep(time.Hour) })
		w.complete("siem", 0)
	})
}

// One output is down: the other gets everything as if it were alone, and the
// lanes of the dead one neither list nor grow. When it returns it gets all,
// once.
func TestInvariant6_DeadOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "good", "dead")
		var down atomic.Bool
		down.Store(true)
		w.outputs["dead"].Fail = heldWhile(&down)
		w.put(stream(1), time.Now(), 3)
		w.during(func() {
			time.Sleep(time.Minute)
			for range 300 {
				w.put(stream(1), time.Now(), 10)
				w.put(stream(2), time.Now(), 10)
				time.Sleep(4 * time.Minute)
			}
			time.Sleep(time.Minute)
			w.complete("good", 0)
			if n := len(w.outputs["dead"].Taken()); n > 0 {
				t.Errorf("the dead output took %d records", n)
			}
			// All of the GETs but the first are for the good output alone.
			if gets, objects := w.bucket.Gets(""), 601; gets > objects+1 {
				t.Errorf("%d GETs for %d objects", gets, objects)
			}
			down.Store(false)
			time.Sleep(5 * time.Minute)
			w.complete("dead", 0)
			w.complete("good", 0)
		})
		w.checkWatermarks()
	})
}

// A lane whose output is held makes no LISTs at all.
func TestInvariant6_HeldLanesListNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.outputs["siem"].Fail = func(*record.Batch) agenttest.Failure {
			return failure(fault.Held)
		}
		w.tune = func(c *agent.Config) { c.Sources[0].Discovery = 1000 * time.Hour }
		for s := range 20 {
			w.put(stream(s), time.Now(), 3)
		}
		w.during(func() {
			time.Sleep(time.Minute)
			before := w.bucket.Lists("")
			time.Sleep(24 * time.Hour)
			if n := w.bucket.Lists("") - before; n > 0 {
				t.Errorf("%d LISTs while the only output was held", n)
			}
		})
	})
}

// An output that is held and comes back at any moment, also while its streams
// are being listed and its objects fetched: everything arrives, once.
func TestInvariant6_HeldAtAnyMoment(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "steady", "flaky")
			if seed%2 == 0 {
				w = newWorld(t, "flaky")
			}
			rng := rand.New(rand.NewPCG(seed, 5))
			var down atomic.Bool
			w.bucket.Latency = 700 * time.Millisecond
			w.outputs["flaky"].Latency = 200 * time.Millisecond
			w.outputs["flaky"].Fail = heldWhile(&down)
			w.during(func() {
				for range 60 {
					for n := range 4 {
						w.put(stream(n), time.Now(), 1+rng.IntN(250))
					}
					time.Sleep(time.Duration(rng.IntN(40_000)) * time.Millisecond)
					down.Store(rng.IntN(2) == 0)
				}
				down.Store(false)
				time.Sleep(20 * time.Minute)
			})
			for name := range w.outputs {
				w.complete(name, 0)
			}
		})
	}
}

// One bad object is parked with its reason; everything else goes on.
func TestInvariant5_BadObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		now := time.Now()
		for i := range 20 {
			w.put(stream(1), now.Add(-time.Duration(i)*time.Minute), 20)
		}
		key := w.key(stream(1), now)
		whole := w.object(key, 80)
		w.bucket.Put(key, whole[:len(whole)/2])
		for n := range 80 {
			delete(w.want, fmt.Sprintf("%s/%s#%d", bucketName, key, n)) // nothing of it may be sent
		}
		w.bucket.Put(w.key(stream(1), now), []byte("this is not gzip"))
		key = w.key(stream(2), now)
		w.bucket.Put(key, append(w.object(key, 0), w.object(key, 0)...))
		key = w.key(stream(2), now)
		w.object(key, 2) // its two records are wanted
		var text strings.Builder
		_, _ = io.WriteString(&text, `{"Records":[`)
		for i := range 2 {
			fmt.Fprintf(&text, `{"eventVersion":"1.11","eventTime":"2026-11-20T18:15:00Z","eventID":"%s#%d","n":0.0},`, key[len(key)-24:len(key)-8], i)
		}
		_, _ = io.WriteString(&text, `{"eventVersion":`)
		w.bucket.Put(key, zip(text.String()))

		r := w.once()
		if len(r.Unfinished) > 0 {
			t.Errorf("unfinished: %v", r.Unfinished)
		}
		w.complete("siem", 0)
		got := parkReasons(w.parked())
		want := map[record.Reason]int{record.Truncated: 1, record.Corrupt: 1, record.TrailingData: 1, record.NotJSON: 1}
		for reason, n := range want {
			if got[reason] != n {
				t.Errorf("%d parked as %s, want %d: %v", got[reason], reason, n, got)
			}
		}
		for _, e := range w.parked() {
			if e.Reason == record.NotJSON && (e.At != 2 || e.Acked.String() != "0-1") {
				t.Errorf("broke at record %d after %s, want 2 after 0-1", e.At, e.Acked)
			}
		}
		w.checkWatermarks()

		// Mended, it heals. It is another object now: nothing says that the two
		// records of the old one are among those of the new.
		w.bucket.Put(key, w.object(key, 5))
		w.once()
		w.complete("siem", 2)
	})
}

// One record that the receiver refuses is found by halving and parked; the
// rest of its batch arrives. A receiver that refuses everything is held.
func TestInvariant5_RefusedRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		refused := ""
		w.outputs["siem"].Fail = refusing(named(&refused))
		key := w.put(stream(1), time.Now(), 95)
		refused = fmt.Sprintf("%s/%s#%d", bucketName, key, 50)
		w.put(stream(1), time.Now(), 95)
		r := w.once()
		if len(r.Unfinished) > 0 {
			t.Errorf("unfinished: %v", r.Unfinished)
		}
		p := w.parked()
		if len(p) != 1 || p[0].Reason != record.Refused || p[0].Record != 50 {
			t.Fatalf("parked: %+v", p)
		}
		refused = ""
		if r := w.once(); len(r.Unfinished) > 0 || len(w.parked()) > 0 {
			t.Errorf("it did not heal: %v, %v", r.Unfinished, w.parked())
		}
		w.complete("siem", 0)

		w.outputs["siem"].Fail = func(*record.Batch) agenttest.Failure {
			return failure(fault.Refused)
		}
		w.put(stream(1), time.Now(), 95)
		r = w.once()
		if len(r.Unfinished) != 1 || len(w.parked()) > 0 {
			t.Errorf("a receiver that refuses everything: %v, parked %v", r.Unfinished, w.parked())
		}

		// The same where the receiver says of each record that it is refused.
		w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
			all := make([]fault.RecordRefusal, len(b.Records))
			for i := range all {
				all[i] = fault.RecordRefusal{Index: i, Answer: "no"}
			}
			return agenttest.Failure{Err: &fault.Error{Kind: fault.Refused, Err: errInjected, Records: all}}
		}
		r = w.once()
		if len(r.Unfinished) != 1 || len(w.parked()) > 0 {
			t.Errorf("a receiver that refuses each record: %v, %d parked", r.Unfinished, len(w.parked()))
		}
	})
}

// An object of very many tiny records, and one of very many that are none:
// neither takes more memory than it should, and the second is parked as one.
func TestInvariant8_VeryManyRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) { c.Memory = 16 << 20 }
		now := time.Now()
		key := w.key(stream(1), now)
		const n = 60_000
		w.bucket.Put(key, zip(`{"Records":[`+strings.Repeat("{},", n-1)+`{}]}`))
		for i := range n {
			w.want[fmt.Sprintf("%s/%s#%d", bucketName, key, i)] = "{}"
		}
		w.bucket.Put(w.key(stream(2), now), zip(`{"Records":[`+strings.Repeat("1,", n)+`1]}`))
		w.put(stream(2), now, 3)
		w.finish()
		w.complete("siem", 0)
		whole := 0
		for _, e := range w.parked() {
			if e.Record == progress.WholeObject {
				whole++
			}
		}
		if all := len(w.parked()); whole != 1 || all > 101 {
			t.Errorf("%d entries are parked, %d of them whole objects", all, whole)
		}
	})
}
