package agent_test

import (
	"fmt"
	"math/rand/v2"
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

func (w *world) status(a *agent.Agent) agent.Status {
	w.t.Helper()
	tally, err := agent.NewTally(w.memory)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Status(tally)
}

func TestStatusCountsWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for s := range 3 {
			w.put(stream(s), time.Now().Add(-10*time.Minute), 50)
		}
		newest := w.put(stream(1), time.Now().Add(-5*time.Minute), 7)
		w.working(func(a *agent.Agent) {
			time.Sleep(30 * time.Second)
			st := w.status(a)
			src, out := st.Sources[0], st.Outputs[0]
			if src.State != agent.StateOK || src.Streams != 3 || src.Objects != 4 || src.Gets != 4 || src.Records != 157 || src.Waiting != 0 {
				t.Errorf("source: %+v", src)
			}
			if int(src.Lists) != w.bucket.Lists("") {
				t.Errorf("%d LISTs, and S3 counted %d", src.Lists, w.bucket.Lists(""))
			}
			taken := len(w.outputs["siem"].Taken())
			if out.State != agent.StateOK || int(out.Records) != taken || taken != 157 || out.InFlight != 0 || out.Waiting != 0 || out.RecordsPerSecond <= 0 || out.Repeats != 0 {
				t.Errorf("output: %+v; it took %d", out, taken)
			}
			n := uint64(0)
			for _, c := range out.Latency.Counts {
				n += c
			}
			if n != uint64(out.Batches) || n == 0 {
				t.Errorf("%d latencies of %d batches", n, out.Batches)
			}
			for _, s := range st.Streams {
				want := int64(10*60 + 30)
				if s.Account == stream(1).Account {
					want = 5*60 + 30
					if s.LastObject != newest {
						t.Errorf("the last object is %s, want %s", s.LastObject, newest)
					}
				}
				if s.Lag == nil || *s.Lag < want-1 || *s.Lag > want+60 || s.Behind > 60 || s.Pending != 0 || s.ListsPerHour == 0 {
					t.Errorf("stream: %+v, lag %v, want about %d", s, s.Lag, want)
				}
			}
			// Where nothing happens the lag grows, and it is not behind.
			time.Sleep(3 * time.Hour)
			for _, s := range w.status(a).Streams {
				if *s.Lag < 3*3600 || s.Behind > 15*60 || s.ListsPerHour > 20 {
					t.Errorf("idle stream: lag %d, %d behind, %d LISTs an hour", *s.Lag, s.Behind, s.ListsPerHour)
				}
			}
		})
	})
}

// What is wrong shows: a stream that can't be listed falls behind, an output
// that is held says since when and why.
func TestStatusShowsTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "good", "bad")
		w.outputs["bad"].Fail = func(*record.Batch) agenttest.Failure {
			return agenttest.Failure{Err: &fault.Error{Kind: fault.Held, Op: "sending", Err: fmt.Errorf("token refused")}}
		}
		w.put(stream(1), time.Now().Add(-time.Minute), 10)
		w.put(stream(2), time.Now().Add(-time.Minute), 10)
		var denied atomic.Bool
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			if denied.Load() && op == "list" && len(what) > 20 && what[8:20] == stream(2).Account {
				return agenttest.Failure{Err: &fault.Error{Kind: fault.Denied, Err: fmt.Errorf("access denied")}}
			}
			return agenttest.Failure{}
		}
		w.working(func(a *agent.Agent) {
			time.Sleep(time.Minute)
			synctest.Wait()
			denied.Store(true)
			time.Sleep(time.Hour)
			st := w.status(a)
			for _, o := range st.Outputs {
				if o.Name == "good" && (o.State != agent.StateOK || o.Error != "" || o.Since != nil || o.Records != 20) {
					t.Errorf("%+v", o)
				}
				if o.Name == "bad" && (o.State != agent.StateHeld || o.Error != "sending: token refused" || o.Since == nil ||
					time.Since(*o.Since) < time.Hour || o.Records != 0 || o.Retries == 0 || o.Repeats == 0) {
					t.Errorf("%+v", o)
				}
			}
			if len(st.Streams) != 2 || len(st.Sources[0].Troubles) == 0 {
				t.Fatalf("%+v, troubles %+v", st.Streams, st.Sources[0].Troubles)
			}
			for _, s := range st.Streams {
				if s.Behind < 3600-60 { // for the held output
					t.Errorf("%s is %d behind in all", s.Account, s.Behind)
				}
				if !s.Narrow("good") {
					t.Fatal("there is no lane for good")
				}
				if behind := s.Behind >= 3600-60; behind != (s.Account == stream(2).Account) {
					t.Errorf("%s is %d behind for good", s.Account, s.Behind)
				}
			}
		})
	})
}

func TestAtRestAgreesWithTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		w.put(stream(1), time.Now().Add(-time.Hour), 10)
		w.bucket.Put(w.key(stream(2), time.Now().Add(-time.Minute)), []byte("no gzip"))
		var live agent.Status
		w.working(func(a *agent.Agent) {
			time.Sleep(10 * time.Minute)
			live = w.status(a)
		})
		tally, err := agent.NewTally(w.memory)
		if err != nil {
			t.Fatal(err)
		}
		cfg := w.config(w.memory)
		rest, err := agent.AtRest(&cfg, tally, time.Now())
		if err != nil || len(rest.Streams) != len(live.Streams) || len(live.Streams) != 2 {
			t.Fatalf("%+v, %v", rest, err)
		}
		for _, r := range rest.Streams {
			for _, l := range live.Streams {
				if r.Account == l.Account && (r.LastObject != l.LastObject || r.Parked != l.Parked || len(r.Outputs) != len(l.Outputs)) {
					t.Errorf("at rest %+v, at work %+v", r.LaneStatus, l.LaneStatus)
				}
			}
		}
		if tally.Total() != 2 || tally.Outputs["a"] != 1 || rest.Outputs[0].State != agent.StateStopped {
			t.Errorf("%+v, %+v", tally, rest.Outputs)
		}
	})
}

// By order a parked object is tried at once, and delivered if it can be.
func TestOrderRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		key := w.key(stream(1), time.Now().Add(-time.Minute))
		w.bucket.Put(key, []byte("no gzip"))
		w.put(stream(1), time.Now().Add(-time.Minute), 5)
		w.working(func(a *agent.Agent) {
			time.Sleep(time.Minute)
			all := w.parked()
			if len(all) != 1 {
				t.Fatalf("parked: %+v", all)
			}
			w.bucket.Put(key, w.object(key, 3))
			began := time.Now()
			out, err := a.Order(t.Context(), agent.Order{IDs: []progress.ParkedID{all[0].ID(), "nothing"}})
			if err != nil || len(out.Done) != 1 || len(out.Unknown) != 1 || out.Unknown[0] != "nothing" {
				t.Fatalf("%+v, %v", out, err)
			}
			time.Sleep(5 * time.Second)
			if left := w.parked(); len(left) != 0 {
				t.Errorf("%v after the order there is parked %+v", time.Since(began), left)
			}
		})
		w.complete("siem", 0)
	})
}

// What is skipped is never tried again, by itself or by "all"; it stays on
// record, and an order that names it takes it back.
func TestOrderSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		key := w.key(stream(1), time.Now().Add(-time.Minute))
		w.bucket.Put(key, []byte("no gzip"))
		w.working(func(a *agent.Agent) {
			time.Sleep(time.Minute)
			id := w.parked()[0].ID()
			if out, err := a.Order(t.Context(), agent.Order{IDs: []progress.ParkedID{id}, Skip: true, Remark: "known"}); err != nil || len(out.Done) != 1 {
				t.Fatalf("%+v, %v", out, err)
			}
			w.bucket.Put(key, w.object(key, 3)) // whole by now, and yet not wanted
			gets := w.bucket.Gets("")
			time.Sleep(40 * 24 * time.Hour) // sweeps and all
			if out, err := a.Order(t.Context(), agent.Order{All: true}); err != nil || len(out.Done) != 0 {
				t.Errorf("all means the skipped, too: %+v, %v", out, err)
			}
			time.Sleep(time.Minute)
			all := w.parked()
			if w.bucket.Gets("") != gets || len(all) != 1 || all[0].Remark != "known" || all[0].Skipped.IsZero() {
				t.Errorf("%d GETs more; parked: %+v", w.bucket.Gets("")-gets, all)
			}
			if st := w.status(a); st.Streams[0].Parked != 0 {
				t.Errorf("a skipped one counts as parked: %+v", st.Streams[0])
			}
			if _, err := a.Order(t.Context(), agent.Order{IDs: []progress.ParkedID{id}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if left := w.parked(); len(left) != 0 {
				t.Errorf("taken back and not delivered: %+v", left)
			}
		})
		w.complete("siem", 0)
	})
}

// Very many are tried in portions, one soon after the other.
func TestOrderOfVeryMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var denied atomic.Bool
		denied.Store(true)
		w.bucket.Fail = func(op, _ string) agenttest.Failure {
			if denied.Load() && op == "get" {
				return agenttest.Failure{Err: &fault.Error{Kind: fault.KMSDenied, Err: fmt.Errorf("key disabled")}}
			}
			return agenttest.Failure{}
		}
		for i := range 1500 {
			w.put(stream(i%7), time.Now().Add(-time.Minute), 1)
		}
		w.working(func(a *agent.Agent) {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if n := len(w.parked()); n != 1500 {
				t.Fatalf("%d are parked", n)
			}
			denied.Store(false)
			if out, err := a.Order(t.Context(), agent.Order{Reason: record.KMSDenied}); err != nil || len(out.Done)+len(out.Busy) != 1500 {
				t.Fatalf("%d done, %v", len(out.Done), err)
			}
			time.Sleep(time.Minute)
			if n := len(w.parked()); n != 0 {
				t.Errorf("%d are parked a minute after the order", n)
			}
		})
		w.complete("siem", 0)
	})
}

// Orders at any moment, while objects heal and break: nothing is lost, nothing
// is sent twice, and what was skipped stays skipped.
func TestInvariant1_OrdersAtAnyMoment(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 7))
			w := newWorld(t)
			w.bucket.Latency = 300 * time.Millisecond
			w.outputs["siem"].Latency = 200 * time.Millisecond
			broken := make(map[string]bool)
			for i := range 30 {
				key := w.key(stream(i%3), time.Now().Add(-time.Minute))
				w.bucket.Put(key, []byte("no gzip"))
				broken[key] = true
			}
			w.wrap = func(s store) agent.Checkpoint { return slowBook{s} }
			skipped := make(map[string]bool)
			w.working(func(a *agent.Agent) {
				time.Sleep(2 * time.Minute)
				order := func(o agent.Order) {
					out, err := a.Order(t.Context(), o)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range out.Done {
						_, key := agent.ParkedKey(&e)
						skipped[key] = o.Skip
					}
				}
				for key := range broken {
					w.bucket.Put(key, w.object(key, 1+dice.IntN(150)))
				}
				for range 60 {
					switch all := w.parked(); {
					case len(all) == 0:
					case dice.IntN(3) > 0:
						order(agent.Order{All: true})
					default:
						id := all[dice.IntN(len(all))].ID()
						order(agent.Order{IDs: []progress.ParkedID{id}, Skip: dice.IntN(2) == 0, Remark: "x"})
					}
					time.Sleep(time.Duration(dice.IntN(700)) * time.Millisecond)
				}
				time.Sleep(time.Hour)
			})
			// What stayed skipped never went out; all else did, once.
			stay := w.parked()
			for _, e := range stay {
				_, key := agent.ParkedKey(&e)
				delete(broken, key)
				if e.Skipped.IsZero() || !skipped[key] {
					t.Errorf("seed %d: parked still: %+v", seed, e)
				}
				for name := range w.want {
					if len(name) > len(bucketName)+1+len(key) && name[len(bucketName)+1:][:len(key)] == key {
						delete(w.want, name)
					}
				}
			}
			for key := range broken {
				if skipped[key] {
					t.Errorf("seed %d: %s was skipped, and is not parked any more", seed, key)
				}
			}
			w.complete("siem", 0)
		})
	}
}

// slowBook takes its time between reading what is parked and saying it.
type slowBook struct{ store }

func (b slowBook) Parked(yield func(progress.Entry) bool) error {
	var all []progress.Entry
	err := b.store.Parked(func(e progress.Entry) bool {
		all = append(all, e)
		return true
	})
	time.Sleep(rand.N(900 * time.Millisecond))
	for _, e := range all {
		if !yield(e) {
			break
		}
	}
	return err
}

// What an operator has tried again is tried again now, whatever the clocks of
// other sources' stores say, or that of the machine where no agent ran.
func TestInvariant5_OrderBesideASourceWithAnotherClock(t *testing.T) {
	for _, atRest := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			ahead := &agenttest.Bucket{Skew: 5 * time.Hour}
			w.tune = func(c *agent.Config) {
				first := c.Sources[0]
				first.Name, first.Bucket, first.Store = "first", "first", ahead
				c.Sources = []agent.SourceConfig{first, c.Sources[0]}
			}
			key := w.key(stream(1), time.Now())
			w.bucket.Put(key, []byte("no gzip"))
			w.working(func(a *agent.Agent) {
				time.Sleep(26 * time.Hour) // no more attempts by itself
				w.bucket.Put(key, w.object(key, 10))
				if !atRest {
					if out, err := a.Order(t.Context(), agent.Order{All: true}); err != nil || len(out.Done) != 1 {
						t.Fatalf("%+v, %v", out, err)
					}
					time.Sleep(2 * time.Minute)
				}
			})
			if atRest {
				o := agent.Order{All: true}
				c, _, err := o.Changes(w.memory, time.Now().Add(5*time.Hour), func(*progress.Entry) bool { return false })
				if err != nil {
					t.Fatal(err)
				}
				if err := w.memory.Commit(c); err != nil {
					t.Fatal(err)
				}
				w.during(func() { time.Sleep(2 * time.Minute) })
			}
			w.complete("siem", 0)
		})
	}
}

// An attempt is on its way when its output is held, and comes to an end after
// the operator has said what is to become of the object: what was said holds.
func TestOrderBesideAnAttemptThatIsGivenUp(t *testing.T) {
	for _, skip := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			key := w.key(stream(1), time.Now())
			w.bucket.Put(key, []byte("no gzip"))
			w.put(stream(2), time.Now(), 1)
			w.tune = func(c *agent.Config) {
				c.Outputs[0].Connections = 5
				c.Sources[0].Refresh, c.Sources[0].IdleRefresh = 2*time.Second, 2*time.Second
			}
			var down atomic.Bool
			fails := heldWhile(&down)
			w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
				if b.Records[0].Object.Key != key {
					return fails(b)
				}
				time.Sleep(30 * time.Second)
				if b.Records[0].Index == 100 {
					return fails(b)
				}
				return agenttest.Failure{}
			}
			w.working(func(a *agent.Agent) {
				time.Sleep(25 * time.Hour) // it is not tried any more by itself
				w.bucket.Put(key, w.object(key, 250))
				if _, err := a.Order(t.Context(), agent.Order{All: true}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				down.Store(true) // three batches of it are being sent
				w.put(stream(2), time.Now(), 1)
				time.Sleep(10 * time.Second)
				out, err := a.Order(t.Context(), agent.Order{All: true, Skip: skip, Remark: "no"})
				if err != nil || len(out.Done) != 1 {
					t.Fatalf("%+v, %v", out, err)
				}
				time.Sleep(2 * time.Minute)
				down.Store(false)
				time.Sleep(time.Hour)
			})
			p := w.parked()
			if !skip {
				w.complete("siem", 0)
			} else if len(p) != 1 || p[0].Skipped.IsZero() || p[0].Remark != "no" || p[0].Acked.Len() != 150 {
				t.Errorf("it was skipped, and now: %+v", p)
			}
		})
	}
}
