package agent_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// picky is a receiver that refuses some records, or all.
type picky struct {
	bad   sync.Map    // by Name
	all   atomic.Bool // the url is wrong
	each  bool        // it says of each record whether it is refused
	calls atomic.Int64
}

func (p *picky) refuses(name string) bool {
	_, bad := p.bad.Load(name)
	return bad
}

func (p *picky) fail(b *record.Batch) agenttest.Failure {
	p.calls.Add(1)
	var refused []fault.RecordRefusal
	for i := range b.Records {
		if p.all.Load() || p.refuses(agenttest.Name(&b.Records[i])) {
			refused = append(refused, fault.RecordRefusal{Index: i, Answer: "no"})
		}
	}
	if len(refused) == 0 {
		return agenttest.Failure{}
	}
	e := &fault.Error{Kind: fault.Refused, Err: errInjected}
	if p.each {
		e.Records = refused
	}
	return agenttest.Failure{Err: e}
}

// makePicky has an output refuse what p does.
func (w *world) makePicky(output string, each bool) *picky {
	p := &picky{each: each}
	w.outputs[output].Fail = p.fail
	w.tune = func(c *agent.Config) { c.Sources[0].Discovery = time.Minute }
	return p
}

// hostile writes n records that the receiver refuses, in objects of so many.
func (w *world) hostile(p *picky, s int, stamp time.Time, n, each int) {
	for n > 0 {
		k := min(n, each)
		key := w.put(stream(s), stamp, k)
		for i := range k {
			p.bad.Store(fmt.Sprintf("%s/%s#%d", bucketName, key, i), true)
		}
		n -= k
	}
}

// sorted checks that an output has taken all good records once, and that all
// bad ones are parked as refused, and nothing else is.
func (w *world) sorted(output string, p *picky) {
	w.t.Helper()
	want := w.want
	w.want = make(map[string]string)
	for n, raw := range want {
		if !p.refuses(n) {
			w.want[n] = raw
		}
	}
	w.complete(output, 0)
	w.want = want
	parked := 0
	for _, e := range w.parked() {
		if e.Lane.Output != output {
			continue
		}
		name := fmt.Sprintf("%s/AWSLogs/%s/%s/%s/%s#%d", bucketName, e.Lane.Stream.Account, e.Lane.Stream.LogType, e.Lane.Stream.Region, e.Position, e.Record)
		if !p.refuses(name) || e.Reason != record.Refused {
			w.t.Errorf("parked as %s: %s", e.Reason, name)
		}
		parked++
	}
	bad := 0
	p.bad.Range(func(any, any) bool { bad++; return true })
	if parked != bad {
		w.t.Errorf("%d of %d refused records are parked", parked, bad)
	}
}

// outputState returns how an output does in the agent that runs.
func (w *world) outputState(output string) agent.OutputStatus {
	for _, o := range w.agent.Status(new(agent.Tally)).Outputs {
		if o.Name == output {
			return o
		}
	}
	w.t.Fatalf("no output %s", output)
	return agent.OutputStatus{}
}

// Somebody writes records that the receiver refuses, on a trail where nothing
// else happens: the next good record, wherever it comes, is delivered all the
// same, and only the bad ones are parked.
func TestInvariant5_HostileRecordsStopNothing(t *testing.T) {
	for _, n := range []int{1, 8, 50, 5000} {
		for _, each := range []bool{false, true} {
			for _, where := range []string{"other stream", "same stream", "same object"} {
				for _, size := range []int{5000, 20} {
					if size > n && size != 5000 {
						continue
					}
					t.Run(fmt.Sprintf("%d in objects of %d/each=%v/%s", n, size, each, where), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							w := newWorld(t)
							p := w.makePicky("siem", each)
							w.during(func() {
								time.Sleep(time.Minute)
								now := time.Now()
								w.hostile(p, 1, now, n, size)
								if where == "same object" {
									key := w.put(stream(1), now, n+3)
									for i := range n {
										p.bad.Store(fmt.Sprintf("%s/%s#%d", bucketName, key, i), true)
									}
								}
								time.Sleep(25 * time.Minute)
								if where != "same object" {
									if got := w.parked(); len(got) > 0 {
										t.Errorf("%d are parked while nothing else was taken", len(got))
									}
									st := w.outputState("siem")
									if want := map[bool]string{true: agent.StateHeld, false: agent.StateRetrying}[n >= 8]; st.State != want || st.Error == "" || st.Since == nil {
										t.Errorf("the output is %+v, want %s", st, want)
									}
									w.put(stream(map[string]int{"other stream": 2, "same stream": 1}[where]), time.Now(), 3)
									// New objects are seen within the idle refresh.
									time.Sleep(12 * time.Minute)
								}
								good := 3
								if where == "same object" { // what came last of the bad ones may still be in doubt
									if got := len(w.outputs["siem"].Taken()); got != good {
										t.Errorf("%d good records were taken, want %d", got, good)
									}
								} else {
									w.sorted("siem", p)
									if st := w.outputState("siem"); st.State != agent.StateOK {
										t.Errorf("the output is %+v", st)
									}
								}
								w.put(stream(1), time.Now(), good)
								time.Sleep(12 * time.Minute)
							})
							w.sorted("siem", p)
						})
					})
				}
			}
		}
	}
}

// The url is wrong for a day, while new records come: nothing is parked, another
// output is not held up, and when it is put right everything arrives, soon.
func TestInvariant5_WrongURLParksNothing(t *testing.T) {
	for _, each := range []bool{false, true} {
		for _, records := range []int{1, 40} {
			t.Run(fmt.Sprintf("each=%v/%d records", each, records), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, "siem", "good")
					p := w.makePicky("siem", each)
					p.all.Store(true)
					w.during(func() {
						for range 24 * 6 {
							for s := range 3 {
								w.put(stream(s), time.Now(), records)
							}
							time.Sleep(10 * time.Minute)
						}
						w.complete("good", 0)
						if got := w.parked(); len(got) > 0 {
							t.Errorf("%d are parked", len(got))
						}
						if st := w.outputState("siem"); st.State != agent.StateHeld {
							t.Errorf("the output is %s", st.State)
						}
						if n := len(w.outputs["siem"].Taken()); n > 0 {
							t.Errorf("%d were taken", n)
						}
						p.all.Store(false)
						time.Sleep(5 * time.Minute)
						w.sorted("siem", p)
					})
					w.complete("good", 0)
				})
			})
		}
	}
}

// More objects wait than may be in doubt: the output is held and lists nothing,
// but for a look at what is new every hour; when the url is put right, all
// arrives within minutes.
func TestInvariant6_WrongURLWithABacklogIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.makePicky("siem", true)
		p.all.Store(true)
		w.tune = func(c *agent.Config) { c.Sources[0].Discovery = 1000 * time.Hour }
		now := time.Now()
		for i := range 9000 {
			w.put(stream(i%3), now.Add(-time.Duration(i)*time.Second), 1)
		}
		w.during(func() {
			time.Sleep(40 * time.Minute)
			before, gets := w.bucket.Lists(""), w.bucket.Gets("")
			time.Sleep(15 * time.Minute)
			if n := w.bucket.Lists("") - before; n > 0 {
				t.Errorf("%d LISTs while the only output was held", n)
			}
			if n := w.bucket.Gets("") - gets; n > 0 {
				t.Errorf("%d GETs while the only output was held", n)
			}
			if st := w.outputState("siem"); st.State != agent.StateHeld {
				t.Errorf("the output is %s", st.State)
			}
			time.Sleep(24 * time.Hour)
			if got := w.parked(); len(got) > 0 {
				t.Errorf("%d are parked", len(got))
			}
			if n := w.bucket.Gets("") - gets; n > 25*9000 {
				t.Errorf("%d GETs in a day", n)
			}
			p.all.Store(false)
			time.Sleep(10 * time.Minute)
			w.sorted("siem", p)
		})
	})
}

// More hostile objects than may be in doubt, in one stream: the output is held,
// and still a good record is delivered within the time after which it is looked
// what is new, and then all hostile ones are parked, bit by bit.
func TestInvariant5_MoreHostileObjectsThanFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.makePicky("siem", true)
		now := time.Now()
		for i := range 10000 {
			w.hostile(p, 1, now.Add(-2*time.Hour-time.Duration(i)*time.Second), 1, 1)
		}
		w.during(func() {
			time.Sleep(time.Hour)
			w.put(stream(1), time.Now(), 3)
			time.Sleep(2 * time.Hour)
			if n := len(w.outputs["siem"].Taken()); n != 3 {
				t.Errorf("%d good records were taken, want 3", n)
			}
			for range 30 {
				w.put(stream(1), time.Now(), 1)
				time.Sleep(30 * time.Minute)
			}
			w.sorted("siem", p)
		})
	})
}

// A receiver that confirms later names what it refuses when it confirms: it is
// the same with it.
func TestInvariant5_HostileRecordsOfAConfirmer(t *testing.T) {
	for _, n := range []int{8, 50, 2000} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/late=%v", n, late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					s := w.withStream("siem")
					p := w.makePicky("siem", false)
					refuses := func(r *record.Record) bool { return p.all.Load() || p.refuses(agenttest.Name(r)) }
					if late {
						s.Fail, s.Refuses = nil, refuses
					}
					w.during(func() {
						time.Sleep(time.Minute)
						w.hostile(p, 1, time.Now(), n, 300)
						time.Sleep(30 * time.Minute)
						if got := w.parked(); len(got) > 0 {
							t.Errorf("%d are parked while nothing else was taken", len(got))
						}
						w.put(stream(2), time.Now(), 3)
						time.Sleep(15 * time.Minute)
						w.sorted("siem", p)

						p.all.Store(true)
						for range 50 {
							w.put(stream(2), time.Now(), 20)
							time.Sleep(10 * time.Minute)
						}
						if got := w.parked(); len(got) > n {
							t.Errorf("a receiver that refuses everything: %d are parked", len(got)-n)
						}
						p.all.Store(false)
						time.Sleep(5 * time.Minute)
						w.sorted("siem", p)
					})
				})
			})
		}
	}
}

// The url is put right while it is being found out which records of a batch are
// refused: none of them is parked.
func TestInvariant5_MendedWhileHalving(t *testing.T) {
	for after := int64(1); after < 300; after += 13 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			p := w.makePicky("siem", false)
			fail := w.outputs["siem"].Fail
			w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
				p.all.Store(p.calls.Load() < after)
				return fail(b)
			}
			w.put(stream(1), time.Now(), 95)
			w.during(func() {
				time.Sleep(10 * time.Minute)
				w.put(stream(2), time.Now(), 30)
				time.Sleep(20 * time.Minute)
			})
			// Of a batch that was not in doubt a few may be: they were refused one
			// by one, and others taken right after.
			if got := w.parked(); len(got) >= 8 {
				t.Errorf("mended after %d requests: %d are parked", after, len(got))
			}
			w.once()
			w.complete("siem", 0)
		})
	}
}

// The agent is stopped, and killed, while records are in doubt: they are in doubt
// again, nothing is lost or sent twice, and they are parked in the end.
func TestInvariant1_DoubtAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.disk = true
		p := w.makePicky("siem", false)
		w.put(stream(1), time.Now().Add(-time.Hour), 3)
		w.hostile(p, 1, time.Now(), 400, 150)
		for range 3 {
			w.during(func() { time.Sleep(3 * time.Minute) })
			w.crash(time.Minute, false)
		}
		w.during(func() {
			time.Sleep(3 * time.Minute) // all of it is refused before a record is taken
			w.put(stream(1), time.Now(), 3)
			time.Sleep(20 * time.Minute)
		})
		w.sorted("siem", p)
	})
}

// In a run that is to end, a trail of which everything is refused is not
// finished, and nothing is parked; the next run that brings a good record parks
// what is bad.
func TestInvariant5_OnceInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.makePicky("siem", false)
		w.hostile(p, 1, time.Now(), 3, 3)
		if r := w.once(); len(r.Unfinished) != 1 || len(w.parked()) > 0 {
			t.Errorf("unfinished: %v, %d parked", r.Unfinished, len(w.parked()))
		}
		w.put(stream(1), time.Now(), 1)
		if r := w.once(); len(r.Unfinished) > 0 {
			t.Errorf("unfinished: %v", r.Unfinished)
		}
		w.sorted("siem", p)
		// What is parked as refused is so again when it is tried alone.
		if r := w.once(); len(r.Unfinished) > 0 {
			t.Errorf("unfinished: %v", r.Unfinished)
		}
		w.sorted("siem", p)
	})
}

// A re-sync brings hostile records, and nothing else goes on: it ends when a
// good record comes.
func TestInvariant5_ResyncOfHostileRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.makePicky("siem", false)
		now := time.Now()
		w.hostile(p, 1, now.Add(-60*day), 400, 30)
		w.during(func() {
			time.Sleep(time.Minute)
			if _, err := w.agent.Resync(t.Context(), agent.ResyncOrder{From: now.Add(-61 * day), To: now.Add(-59 * day)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if got := w.parked(); len(got) > 0 {
				t.Errorf("%d are parked while nothing else was taken", len(got))
			}
			w.put(stream(2), time.Now(), 3)
			time.Sleep(20 * time.Minute)
			w.sorted("siem", p)
			if all, err := w.agent.Resyncs(); err != nil || len(all) != 1 || all[0].State != "done" {
				t.Errorf("%+v, %v", all, err)
			}
		})
	})
}

// Good and bad records in any mixture, over streams and two outputs, one of which
// is down at times and set up wrongly at others.
func TestInvariant5_HostileMixture(t *testing.T) {
	for seed := range 4 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hostileMixture(t, uint64(seed)) })
		})
	}
}

func hostileMixture(t *testing.T, seed uint64) {
	w := newWorld(t, "siem", "other")
	rng := rand.New(rand.NewPCG(seed, 19))
	all := map[string]*picky{"siem": w.makePicky("siem", seed%2 == 0), "other": w.makePicky("other", seed%3 == 0)}
	var down atomic.Bool
	w.outputs["siem"].Latency = 50 * time.Millisecond
	fail := w.outputs["siem"].Fail
	w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
		if down.Load() {
			return agenttest.Failure{Err: &fault.Error{Kind: fault.Held, Err: errInjected}}
		}
		return fail(b)
	}
	var mu sync.Mutex // over what is bad
	w.outputs["other"].Fail, w.outputs["siem"].Fail = locked(&mu, w.outputs["other"].Fail), locked(&mu, w.outputs["siem"].Fail)
	for range 3 {
		w.during(func() {
			for range 15 {
				mu.Lock()
				for s := range 2 {
					n := 1 + rng.IntN(150)
					key := w.put(stream(s), time.Now(), n)
					from, to := rng.IntN(n), n
					if rng.IntN(2) == 0 {
						from = n
					} else if rng.IntN(2) == 0 {
						from = 0
					}
					for i := from; i < to; i++ {
						name := fmt.Sprintf("%s/%s#%d", bucketName, key, i)
						all["siem"].bad.Store(name, true)
						all["other"].bad.Store(name, true)
					}
				}
				mu.Unlock()
				down.Store(rng.IntN(8) == 0)
				all["other"].all.Store(rng.IntN(4) == 0)
				time.Sleep(time.Duration(rng.IntN(600)) * time.Second)
			}
			down.Store(false)
			all["other"].all.Store(false)
			// All of it is listed and refused before the record that is taken.
			time.Sleep(15 * time.Minute)
			w.put(stream(0), time.Now(), 1)
			time.Sleep(time.Hour)
		})
	}
	w.sorted("siem", all["siem"])
	// A receiver that is set up wrongly in the middle of a batch that it takes in
	// part can't be told from records that are wrong: no more may be parked.
	w.sorted("other", all["other"])
}

func locked(mu *sync.Mutex, f func(*record.Batch) agenttest.Failure) func(*record.Batch) agenttest.Failure {
	return func(b *record.Batch) agenttest.Failure {
		mu.Lock()
		defer mu.Unlock()
		return f(b)
	}
}

// A receiver that confirms later refuses all of the one batch that there is, of
// which nothing is in memory any more: when it is mended, the batch is delivered
// though nothing new comes.
func TestInvariant5_ConfirmerMendedOnAQuietTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.withStream("siem")
		p := w.makePicky("siem", false)
		s.Fail, s.Refuses = nil, func(*record.Record) bool { return p.all.Load() }
		p.all.Store(true)
		w.put(stream(1), time.Now(), 50)
		w.during(func() {
			time.Sleep(2 * time.Hour)
			p.all.Store(false)
			time.Sleep(2 * time.Minute)
			w.sorted("siem", p)
		})
	})
}

// While everything is refused, the receiver is asked by one sender and at a
// modest pace, however much waits.
func TestRefusingReceiverIsAskedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.makePicky("siem", true)
		var at, most atomic.Int64
		w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
			if n := at.Add(1); p.calls.Load() > 4 { // the first come before anybody knows
				most.Store(max(n, most.Load()))
			}
			defer at.Add(-1)
			time.Sleep(50 * time.Millisecond)
			return p.fail(b)
		}
		p.all.Store(true)
		w.put(stream(1), time.Now(), 10000)
		w.during(func() {
			time.Sleep(30 * time.Second)
			if n := p.calls.Load(); n > 80 {
				t.Errorf("%d requests in half a minute", n)
			}
			time.Sleep(time.Hour)
		})
		if most.Load() != 1 {
			t.Errorf("%d requests at once", most.Load())
		}
		// Each of the 100 batches once, and a sample of up to 8 every minute.
		if n := p.calls.Load(); n > 100+9*70 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

// A receiver answers some requests with what may mean that it refuses the records
// or that it is unwell, and for a while all: none of its good records is parked,
// and the bad ones are in the end.
func TestInvariant5_UnsureRefusals(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			p := w.makePicky("siem", false)
			rng := rand.New(rand.NewPCG(seed, 23))
			var mu sync.Mutex
			w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
				mu.Lock()
				defer mu.Unlock()
				f := p.fail(b)
				if f.Err != nil || rng.IntN(4) == 0 {
					return agenttest.Failure{Err: &fault.Error{Kind: fault.Refused, Unsure: true, Err: errInjected}}
				}
				return f
			}
			w.during(func() {
				for i := range 20 {
					mu.Lock()
					key := w.put(stream(i%2), time.Now(), 80)
					for _, n := range []int{3, 40} {
						p.bad.Store(fmt.Sprintf("%s/%s#%d", bucketName, key, n), true)
					}
					mu.Unlock()
					p.all.Store(i%5 == 4)
					time.Sleep(10 * time.Minute)
				}
				p.all.Store(false)
				for range 6 {
					w.put(stream(1), time.Now(), 5)
					time.Sleep(10 * time.Minute)
				}
			})
			w.sorted("siem", p)
		})
	}
}
