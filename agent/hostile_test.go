package agent_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// An output is held while its only lane is being listed.
func TestInvariant6_HeldWhileListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var down atomic.Bool
		down.Store(true)
		w.outputs["siem"].Fail = heldWhile(&down)
		w.bucket.Latency = 3 * time.Second
		for s := range 20 {
			w.put(stream(s), time.Now(), 3)
		}
		w.tune = func(c *agent.Config) { c.Sources[0].Refresh = 2 * time.Second }
		w.during(func() {
			time.Sleep(5 * time.Minute)
			down.Store(false)
			time.Sleep(15 * time.Minute)
		})
		w.complete("siem", 0)
	})
}

// What is found late in a run that is to end is still delivered by it.
func TestOnceWaitsForAnOutputThatHadNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) { c.Sources[0].MaxListsPerMinute = 60 }
		for s := range 400 {
			n := 1
			if s%100 != 50 {
				n = 0
			}
			w.put(stream(s), time.Now(), n)
		}
		w.finish()
		w.complete("siem", 0)
	})
}

// One object takes longer than two minutes to fetch.
func TestOnceWaitsForASlowFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bucket.Latency = 100 * time.Second
		w.put(stream(1), time.Now(), 10)
		w.finish()
		w.complete("siem", 0)
	})
}

// A receiver takes one batch after the other, but so slowly that no object is
// done for two minutes: that is progress.
func TestOnceWaitsForALargeObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.outputs["siem"].Latency = 5 * time.Second
		w.put(stream(1), time.Now(), 10000) // 100 batches, two at once
		w.finish()
		w.complete("siem", 0)
	})
}

// One stream may not be listed: the others of its source are delivered by a
// run that is to end, which then says what failed.
func TestInvariant5_OnceWithADeniedStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.outputs["siem"].Latency = 2 * time.Second
		denied := "AWSLogs/" + stream(0).String() + "/"
		w.bucket.Fail = failing(fault.Denied, "list", denied)
		w.put(stream(0), time.Now(), 0)
		for i := range 40 {
			w.put(stream(1), time.Now().Add(-time.Duration(i)*time.Minute), 50)
		}
		r := w.once()
		if len(r.Unfinished) != 1 {
			t.Errorf("unfinished: %v", r.Unfinished)
		}
		w.complete("siem", 0)
	})
}

// A level that can't be discovered, for no reason that anybody knows: a run
// that is to end ends all the same, and says so.
func TestOnceEndsThoughALevelFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bad := "AWSLogs/" + stream(0).Account + "/"
		w.bucket.Fail = failing(fault.Temporary, "list", bad)
		w.put(stream(0), time.Now(), 0)
		w.put(stream(1), time.Now(), 2)
		began := time.Now()
		r := w.once()
		if took := time.Since(began); took > 10*time.Minute {
			t.Errorf("it took %v", took)
		}
		if len(r.Unfinished) != 1 || strings.Contains(r.Unfinished[0], "interrupted") {
			t.Errorf("unfinished: %v", r.Unfinished)
		}
	})
}

// The same, denied: what could not be looked at makes the run fail.
func TestOnceFailsWhereALevelIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bad := "AWSLogs/" + stream(0).Account + "/"
		w.bucket.Fail = failing(fault.Denied, "list", bad)
		w.put(stream(0), time.Now(), 0)
		w.put(stream(1), time.Now(), 2)
		if r := w.once(); len(r.Unfinished) == 0 {
			t.Errorf("an account may not be listed, and the run says that all is done")
		}
	})
}

// A slow output does not slow another, not even in the same stream.
func TestInvariant6_SlowOutput(t *testing.T) {
	slowOutput(t, 20*time.Second, 1)
}

// An output that is slow, but takes something every second or two, sets nobody
// else's pace.
func TestInvariant6_SteadilySlowOutput(t *testing.T) {
	slowOutput(t, 1500*time.Millisecond, 10)
}

// slowOutput sees to it that the output beside a slow one has all objects of so
// many streams after 2 minutes.
func slowOutput(t *testing.T, latency time.Duration, streams int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fast", "slow")
		w.outputs["slow"].Latency = latency
		w.tune = func(c *agent.Config) {
			for i := range c.Outputs {
				if c.Outputs[i].Name == "slow" {
					c.Outputs[i].BatchRecords, c.Outputs[i].Connections = 10, 1
				}
			}
		}
		for n := range streams {
			for i := range 3000 / streams {
				w.put(stream(n), time.Now().Add(-2*time.Hour-time.Duration(i)*20*time.Second), 1)
			}
		}
		w.during(func() {
			time.Sleep(2 * time.Minute)
			if n := len(w.outputs["fast"].Taken()); n < 3000 {
				t.Errorf("the fast output has %d of 3000 objects after 2 minutes; the slow one %d", n, len(w.outputs["slow"].Taken()))
			}
		})
	})
}

// Some bad records in a row are some bad records, not a bad output.
func TestInvariant5_BadRecordsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.outputs["siem"].Fail = refusing(func(r *record.Record) bool { return r.Index < 12 })
		key := w.put(stream(1), time.Now(), 95)
		w.during(func() { time.Sleep(6 * time.Hour) })
		for i := range 12 {
			delete(w.want, fmt.Sprintf("%s/%s#%d", bucketName, key, i))
		}
		w.complete("siem", 0)
		if p := w.parked(); len(p) != 12 {
			t.Errorf("parked: %d", len(p))
		}
	})
}

// An object that can't be fetched for days keeps its sweeps from completing:
// that does not make every poll a sweep.
func TestInvariant9_SweepsOfAFailingObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) {
			c.Sources[0].Start = func(now time.Time) time.Time { return now.Add(-20 * day) }
			c.Sources[0].Discovery = 1000 * time.Hour
		}
		for i := range 20000 {
			w.put(stream(1), time.Now().Add(-time.Duration(i)*80*time.Second), 0)
		}
		bad := w.put(stream(1), time.Now().Add(-10*day), 1)
		var mended atomic.Bool
		fail := failing(fault.Temporary, "get", bad)
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			if mended.Load() {
				return agenttest.Failure{}
			}
			return fail(op, what)
		}
		feed := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(90 * time.Second)
				w.put(stream(1), time.Now(), 0)
			}
		}
		w.during(func() {
			feed(26 * time.Hour)
			before := w.bucket.Lists("")
			feed(4 * time.Hour)
			bad := (w.bucket.Lists("") - before) / 4
			mended.Store(true)
			feed(26 * time.Hour)
			before = w.bucket.Lists("")
			feed(4 * time.Hour)
			good := (w.bucket.Lists("") - before) / 4
			t.Logf("%d LISTs an hour while it fails, %d else", bad, good)
			if bad > 2*good {
				t.Errorf("%d LISTs an hour while one object fails, %d else", bad, good)
			}
		})
	})
}

// A commit that was given up on: nothing that builds on it may be committed.
func TestInvariant4_NothingAfterACommitThatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) {
			c.Sources[0].Start = func(now time.Time) time.Time { return now.Add(-90 * day) }
			c.Sources[0].LateHorizon = 30 * day
		}
		now := time.Now()
		// Backlog from beyond the late horizon; one object is bad at first.
		bad := w.key(stream(1), now.Add(-60*day))
		w.bucket.Put(bad, []byte("this is not gzip"))
		for i := range 5 {
			w.put(stream(1), now.Add(-50*day+time.Duration(i)*time.Minute), 300)
		}
		w.outputs["siem"].Latency = 2 * time.Second // so that the bad one comes first
		s := w.open()
		var mu sync.Mutex
		dead := false
		ctx, stop := context.WithCancel(context.Background())
		abort, kill := context.WithCancel(context.Background())
		defer stop()
		defer kill()
		refused := 0
		c := &faultyCheckpoint{store: s, t: t}
		cfg := w.config(nil)
		cfg.Checkpoint = commitHook{c, func(ch *progress.Changes) error {
			mu.Lock()
			defer mu.Unlock()
			if !dead && len(ch.Park) > 0 { // the disk is full, until the operator aborts and makes room
				refused++
				return errInjected
			}
			return c.Commit(ch)
		}}
		a, err := agent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Minute)
			stop()
			time.Sleep(time.Second)
			kill()
			time.Sleep(time.Millisecond)
			mu.Lock()
			dead = true
			mu.Unlock()
		}()
		_, _ = a.Run(ctx, abort)
		if refused == 0 {
			t.Fatal("no commit failed")
		}
		// It is mended by the time that the agent runs again.
		w.bucket.Put(bad, w.object(bad, 3))
		w.during(func() { time.Sleep(50 * time.Hour) })
		w.complete("siem", 100000)
		w.checkWatermarks()
	})
}

// commitHook stands before a checkpoint.
type commitHook struct {
	*faultyCheckpoint
	commit func(*progress.Changes) error
}

func (c commitHook) Commit(ch *progress.Changes) error { return c.commit(ch) }

// Parked objects of a stream that is excluded by now don't keep those of
// others from being tried again.
func TestInvariant5_ParkedOfAnExcludedStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.disk = true
		w.bucket.Fail = failing(fault.KMSDenied, "get", "")
		for i := range 300 {
			w.put(stream(0), time.Now().Add(-time.Duration(i)*time.Minute), 0)
		}
		w.during(func() { time.Sleep(2 * time.Minute) })
		w.put(stream(1), time.Now(), 3)
		w.during(func() { time.Sleep(20 * time.Minute) })
		w.tune = func(c *agent.Config) { c.Sources[0].ExcludeAccounts = []string{stream(0).Account} }
		w.during(func() { time.Sleep(time.Hour) })
		w.bucket.Fail = nil
		w.during(func() { time.Sleep(48 * time.Hour) })
		w.complete("siem", 0)
	})
}

// With every level pinned, a run that is to end tries what is parked, too.
func TestOnceTriesParkedOfPinnedStreams(t *testing.T) {
	missed := 0
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.tune = func(c *agent.Config) {
				c.Sources[0].Organizations = []string{"none"}
				c.Sources[0].Accounts = nil
				for n := range 400 {
					c.Sources[0].Accounts = append(c.Sources[0].Accounts, stream(n+2).Account)
				}
				c.Sources[0].Accounts = append(c.Sources[0].Accounts, stream(1).Account)
				c.Sources[0].LogTypes = []string{"CloudTrail"}
				c.Sources[0].Regions = []string{"eu-central-1"}
			}
			w.bucket.Fail = failing(fault.KMSDenied, "get", "")
			w.put(stream(1), time.Now(), 3)
			w.once()
			w.bucket.Fail = nil
			w.once()
			if len(w.parked()) > 0 {
				missed++
			}
		})
	}
	if missed > 0 {
		t.Errorf("in %d of 20 runs the parked object was not tried", missed)
	}
}

// One record is parked; later its object can't be read. That must not send the
// others of its object again.
func TestInvariant2_ParkedRecordOfAnArchivedObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		refused := ""
		w.outputs["siem"].Fail = refusing(named(&refused))
		key := w.put(stream(1), time.Now(), 95)
		refused = fmt.Sprintf("%s/%s#%d", bucketName, key, 50)
		w.once()
		w.bucket.Fail = failing(fault.Archived, "get", "")
		w.once()
		for _, e := range w.parked() {
			t.Logf("parked: record %d, %s, acked %s", e.Record, e.Reason, e.Acked)
		}
		w.bucket.Fail, refused = nil, ""
		w.once()
		w.complete("siem", 0)
	})
}

// An output is back while another of its senders has just been answered and
// the commit takes its time.
func TestInvariant6_BackBeforeTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mu sync.Mutex
		n := 0
		w.outputs["siem"].Fail = func(*record.Batch) agenttest.Failure {
			mu.Lock()
			n++
			at := n
			mu.Unlock()
			switch at {
			case 1: // slow, and taken in the end
				time.Sleep(20 * time.Second)
			case 2:
				return failure(fault.Held)
			}
			return agenttest.Failure{}
		}
		w.wrap = func(s store) agent.Checkpoint {
			return &faultyCheckpoint{store: s, t: t, delay: func() time.Duration { return 500 * time.Millisecond }}
		}
		for range 10 {
			w.put(stream(1), time.Now(), 90)
		}
		w.during(func() { time.Sleep(10 * time.Minute) })
		w.complete("siem", 0)
	})
}

// deaf is a server that has more than a page and does not know start-after.
type deaf struct{ *agenttest.Bucket }

func (d deaf) List(ctx context.Context, r listing.Request) (listing.Page, error) {
	if r.Delimiter == "" {
		r.StartAfter = ""
	}
	return d.Bucket.List(ctx, r)
}

func TestInvariant9_AServerThatRepeatsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bucket.Latency = 20 * time.Millisecond
		w.tune = func(c *agent.Config) { c.Sources[0].Store = deaf{w.bucket} }
		for i := range 1500 {
			w.put(stream(1), time.Now().Add(-time.Duration(i)*time.Second), 0)
		}
		w.during(func() {
			time.Sleep(time.Minute)
			before := w.bucket.Lists("")
			time.Sleep(10 * time.Minute)
			if n := w.bucket.Lists("") - before; n > 200 {
				t.Errorf("%d LISTs in ten minutes of one stream", n)
			}
		})
	})
}

// stalled is a bucket whose GETs take very long.
type stalled struct{ *agenttest.Bucket }

func (s stalled) Get(ctx context.Context, _, _ string) (listing.Body, error) {
	t := time.NewTimer(time.Minute) // as long as a body may stall
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return listing.Body{}, &fault.Error{Kind: fault.Temporary, Err: errInjected}
}

// A source whose GETs stall keeps no other source from its share of the memory.
func TestInvariant5_AStalledSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other := new(agenttest.Bucket)
		w.tune = func(c *agent.Config) {
			o := c.Sources[0]
			o.Name, o.Bucket, o.Store = "other", "other", stalled{other}
			c.Sources = append(c.Sources, o)
			c.Downloads = 16
		}
		junk := make([]byte, 1<<20)
		for i := range 2000 {
			other.Put(w.key(stream(9), time.Now().Add(-time.Duration(i)*time.Minute)), junk)
		}
		w.during(func() {
			time.Sleep(time.Minute)
			for i := range 200 {
				w.put(stream(1), time.Now().Add(-time.Duration(i)*time.Second), 5)
			}
			time.Sleep(20 * time.Minute) // a discovery, and some more
			if n := len(w.outputs["siem"].Taken()); n < 1000 {
				t.Errorf("%d of 1000 records are there", n)
			}
		})
	})
}

// dated is a bucket that says another time, or none.
type dated struct {
	*agenttest.Bucket
	at func(time.Time, listing.Request) time.Time
}

func (d dated) List(ctx context.Context, r listing.Request) (listing.Page, error) {
	p, err := d.Bucket.List(ctx, r)
	p.At = d.at(p.At, r)
	return p, err
}

// One answer with a Date from years ahead hides nothing for good.
func TestInvariant3_OneWrongDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := time.Now()
		wrong := false
		w.tune = func(c *agent.Config) {
			c.Sources[0].Store = dated{w.bucket, func(at time.Time, r listing.Request) time.Time {
				if !wrong && r.StartAfter != "" && at.Sub(began) > 24*time.Hour {
					wrong = true
					return at.Add(10 * 365 * day)
				}
				return at
			}}
		}
		w.put(stream(1), time.Now(), 3)
		w.during(func() {
			time.Sleep(30 * time.Hour)
			w.put(stream(1), time.Now().Add(-20*day), 2)
			w.put(stream(1), time.Now().Add(-5*time.Hour), 2)
			time.Sleep(72 * time.Hour)
		})
		if !wrong {
			t.Fatal("there was no wrong Date")
		}
		w.complete("siem", 0)
	})
}

// What is new comes within a refresh while a sweep of several pages is due at
// every pass.
func TestFreshWhileAnObjectFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) {
			c.Sources[0].Start = func(now time.Time) time.Time { return now.Add(-20 * day) }
		}
		for i := range 5000 {
			w.put(stream(1), time.Now().Add(-time.Duration(i)*5*time.Minute), 0)
		}
		bad := w.put(stream(1), time.Now().Add(-10*day), 1)
		w.bucket.Fail = failing(fault.Temporary, "get", bad)
		w.during(func() {
			for range 25 * 60 { // the daily sweep has met the bad one
				time.Sleep(time.Minute)
				w.put(stream(1), time.Now(), 0)
			}
			late := 0
			for range 60 {
				name := bucketName + "/" + w.put(stream(1), time.Now(), 1) + "#0"
				time.Sleep(75 * time.Second)
				if w.outputs["siem"].Taken()[name] == 0 {
					late++
				}
			}
			if late > 0 {
				t.Errorf("%d of 60 new objects took more than 75 s at a refresh of a minute", late)
			}
		})
	})
}
