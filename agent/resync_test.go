package agent_test

import (
	"context"
	"errors"
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
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
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
	return w.toItsEnd(func(c *agent.Config) { c.Only = id })
}

// old writes objects with stamps of a day long past, written then.
func (w *world) old(s progress.Stream, at time.Time, objects int) {
	for i := range objects {
		stamp := at.Add(time.Duration(i) * 5 * time.Minute)
		key := w.key(s, stamp)
		w.bucket.PutAt(key, w.object(key, 3), stamp.Add(2*time.Minute))
	}
}

// longAgo has the agent begin, and then puts objects where only a re-sync looks:
// beyond the late horizon and before start. It returns when they were written,
// and an order that takes them all in.
func (w *world) longAgo(objects int) (at time.Time, order agent.ResyncOrder) {
	w.t.Helper()
	w.put(stream(1), time.Now(), 1)
	w.once()
	at = time.Now().Add(-60 * day)
	w.old(stream(1), at, objects)
	return at, agent.ResyncOrder{From: at.Add(-day), To: at.Add(day)}
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
		w.finish()
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

// An object that takes long holds the re-sync's own watermark, and not what
// comes behind it: that is settled by itself, and not sent again after a kill.
func TestInvariant2_ResyncRemembersWhatIsAheadOfItsWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 1)
		w.once()
		at := time.Now().Add(-60 * day).Truncate(day)
		slow := w.key(stream(1), at)
		w.bucket.PutAt(slow, w.object(slow, 3), at)
		w.old(stream(1), at.Add(time.Hour), 200)
		w.bucket.Fail = failing(fault.Unreachable, "get", slow)
		w.resync(agent.ResyncOrder{From: at, To: at.Add(day)})
		w.killed(30*time.Second, false)
		if c := w.memoryResyncs()[0].Count; c.Objects != 200 {
			t.Fatalf("before the kill: %+v", c)
		}
		w.bucket.Fail = nil
		w.once()
		w.complete("siem", 0) // nothing was on its way when it was killed
		if r := w.memoryResyncs()[0]; r.State != progress.ResyncDone || r.Count.Objects != 201 || r.Count.Passed != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// With --resend all is sent again, once, whatever is known of it, and what a
// listing knows is not disturbed.
func TestResyncResends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		now := time.Now()
		w.old(stream(1), now.Add(-10*time.Hour), 50)
		w.old(stream(2), now.Add(-50*day), 50)
		w.resync(agent.ResyncOrder{From: now.Add(-51 * day), To: now.Add(-49 * day)})
		w.once()
		w.complete("siem", 0)
		w.resync(agent.ResyncOrder{From: now.Add(-51 * day), To: now, Resend: true})
		w.once()
		taken := w.outputs["siem"].Taken()
		if len(taken) != 300 {
			t.Errorf("%d records", len(taken))
		}
		for name, n := range taken {
			if n != 2 {
				t.Fatalf("%s was taken %d times", name, n)
			}
		}
		w.once()
		w.complete("siem", 300)
		if r := w.memoryResyncs()[1]; r.Count.Objects != 100 || r.Count.Records != 300 || r.Count.Bytes == 0 {
			t.Errorf("%+v", r)
		}
	})
}

// A held output holds up its own part and no other; when it is back it gets all
// of it, once.
func TestInvariant6_ResyncWaitsForHeldOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "siem", "lake")
		for s := range 3 {
			w.put(stream(s+1), time.Now(), 1)
		}
		w.once()
		at := time.Now().Add(-60 * day)
		for s := range 3 {
			w.old(stream(s+1), at, 300)
		}
		var dead atomic.Bool
		w.outputs["lake"].Fail = heldWhile(&dead)
		w.outputs["lake"].Latency = 50 * time.Millisecond
		w.outputs["siem"].Latency = 50 * time.Millisecond
		w.resync(agent.ResyncOrder{From: at.Add(-day), To: at.Add(3 * day)})
		second := w.resync(agent.ResyncOrder{From: at.Add(-day), To: at.Add(3 * day), Outputs: []string{"siem"}})
		w.during(func() {
			time.Sleep(500 * time.Millisecond)
			dead.Store(true)
			time.Sleep(5 * time.Minute)
			w.complete("siem", 0)
			all := w.memoryResyncs()
			if all[0].State != progress.ResyncRunning || all[1].State != progress.ResyncDone {
				t.Errorf("while one is held: %+v", all)
			}
			dead.Store(false)
			time.Sleep(10 * time.Minute)
		})
		w.complete("siem", 0)
		w.complete("lake", 0)
		if all := w.memoryResyncs(); all[0].State != progress.ResyncDone || all[1].ID != second.ID {
			t.Errorf("in the end: %+v", all)
		}
	})
}

// An object that can't be delivered is parked as ever, and the re-sync is done
// with it. What only failed for a while arrives.
func TestInvariant5_ResyncParks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		at, order := w.longAgo(40)
		bad := w.key(stream(1), at.Add(30*time.Minute))
		w.bucket.PutAt(bad, []byte("no gzip"), at)
		n := 0
		var mu sync.Mutex
		w.bucket.Fail = func(op, _ string) agenttest.Failure {
			mu.Lock()
			defer mu.Unlock()
			if n++; n%3 == 0 {
				return failure(fault.Throttled)
			}
			return agenttest.Failure{}
		}
		w.resync(order)
		w.once()
		w.complete("siem", 0)
		all := w.parked()
		if len(all) != 1 || all[0].Reason != record.Corrupt || all[0].Lane.Resync != 0 {
			t.Errorf("parked: %+v", all)
		}
		sends := w.outputs["siem"].Sends()
		w.resync(order)
		w.only(2)
		if r := w.memoryResyncs(); r[0].State != progress.ResyncDone || r[1].Count.Objects != 0 || w.outputs["siem"].Sends() != sends {
			t.Errorf("%+v", r)
		}
		// It is mended, and tried again as every parked object is.
		w.bucket.PutAt(bad, w.object(bad, 2), time.Now())
		w.once()
		w.complete("siem", 0)
		if all := w.parked(); len(all) != 0 {
			t.Errorf("still parked: %+v", all)
		}
	})
}

// What appears in a window after it was gone over is all that a second re-sync
// brings: beyond the late horizon and before start no listing looks for it.
func TestInvariant3_ResyncFindsWhatAppearedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		at, order := w.longAgo(30)
		w.resync(order)
		w.once()
		time.Sleep(50 * day) // the days after the start are beyond the late horizon, too
		w.put(stream(1), time.Now(), 1)
		w.once()
		late := w.key(stream(1), at.Add(7*time.Minute))
		w.bucket.Put(late, w.object(late, 2))
		after := w.key(stream(1), time.Now().Add(-49*day)) // after start, 49 days late
		w.bucket.Put(after, w.object(after, 2))
		w.once()
		if n := w.outputs["siem"].Taken()[bucketName+"/"+late+"#0"]; n != 0 {
			t.Error("a listing has brought it: this test shows nothing")
		}
		order.To = time.Now()
		w.resync(order)
		w.once()
		w.complete("siem", 0)
		if c := w.memoryResyncs()[1].Count; c.Objects != 2 {
			t.Errorf("the second re-sync: %+v", c)
		}
	})
}

// What a cancelled re-sync has sent is known by whole days afterwards.
func TestResyncCancelledInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 1)
		w.once()
		at := time.Now().Add(-60 * day).Truncate(day)
		for d := range 10 {
			w.old(stream(1), at.AddDate(0, 0, d), 200)
		}
		w.bucket.Latency = 50 * time.Millisecond
		order := agent.ResyncOrder{From: at, To: at.AddDate(0, 0, 10)}
		w.resync(order)
		w.cancelDuring(1, 6*time.Second)
		r := w.memoryResyncs()[0]
		if r.State != progress.ResyncCancelled || r.Count.Objects < 500 || r.Count.Objects > 1500 || r.Ended.IsZero() {
			t.Fatalf("cancelled: %+v", r)
		}
		w.once()
		if n := len(w.outputs["siem"].Taken()); n > 1+3*2000*8/10 {
			t.Errorf("%d records after it was cancelled", n)
		}
		w.resync(order)
		w.once()
		w.complete("siem", 3*(200+resyncAhead))
	})
}

// A cancellation that can't be written down says so, and the next one is made
// good: done is done in the checkpoint, too, whether the first commit was lost or
// only its answer was.
func TestResyncCancelCommitFails(t *testing.T) {
	for _, done := range []bool{false, true} {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("done=%v/running=%v", done, running), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { resyncCancelCommitFails(t, done, running) })
			})
		}
	}
}

func resyncCancelCommitFails(t *testing.T, done, running bool) {
	w := newWorld(t)
	w.put(stream(1), time.Now(), 1)
	w.once()
	at := time.Now().Add(-60 * day).Truncate(day)
	w.old(stream(1), at, 2000)
	w.bucket.Latency = 50 * time.Millisecond
	w.resync(agent.ResyncOrder{From: at, To: at.AddDate(0, 0, 2)})
	var fail atomic.Bool
	w.wrap = func(s store) agent.Checkpoint {
		return &faultyCheckpoint{store: s, t: t, fail: func() agenttest.Failure {
			if !fail.Load() {
				return agenttest.Failure{}
			}
			return agenttest.Failure{Err: errInjected, Done: done}
		}}
	}
	cancel := func(a *agent.Agent) {
		fail.Store(true)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := a.CancelResync(ctx, 1); err == nil {
			t.Error("it is cancelled, though nothing can be committed")
		}
		if all, err := a.Resyncs(); err != nil || all[0].State == progress.ResyncCancelled {
			t.Errorf("it counts as cancelled before that is written down: %+v, %v", all, err)
		}
		fail.Store(false)
		s, err := a.CancelResync(t.Context(), 1)
		if err != nil || s.State != progress.ResyncCancelled || s.Ended.IsZero() {
			t.Errorf("cancelled again: %+v, %v", s, err)
		}
		if r := w.memoryResyncs()[0]; r.State != progress.ResyncCancelled || r.Ended.IsZero() {
			t.Errorf("the checkpoint has it as %+v", r)
		}
	}
	if running {
		w.during(func() {
			time.Sleep(3 * time.Second)
			cancel(w.agent)
			taken := len(w.outputs["siem"].Taken())
			time.Sleep(time.Hour)
			if n := len(w.outputs["siem"].Taken()) - taken; n > 3*resyncAhead {
				t.Errorf("%d records after it was cancelled", n)
			}
		})
	} else {
		a, err := agent.New(w.config(w.open()))
		if err != nil {
			t.Fatal(err)
		}
		cancel(a)
	}
	w.once()
	if r := w.memoryResyncs()[0]; r.State != progress.ResyncCancelled {
		t.Errorf("the next run has it as %+v", r)
	}
}

// resyncAhead is how many objects at most a re-sync has settled ahead of its
// watermark: what its window holds.
const resyncAhead = 1000

// An order for what does not exist is refused, with what does.
func TestResyncRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 1)
		w.put(stream(2), time.Now(), 1)
		w.once()
		now := time.Now()
		s := w.open()
		defer s.Close()
		a, err := agent.New(w.config(s))
		if err != nil {
			t.Fatal(err)
		}
		yesterday := agent.ResyncOrder{From: now.Add(-day), To: now}
		for name, c := range map[string]struct {
			change     func(*agent.ResyncOrder)
			says, hint string
		}{
			"upside down": {func(o *agent.ResyncOrder) { o.From, o.To = o.To, o.From }, "upside down", "its beginning comes first"},
			"empty":       {func(o *agent.ResyncOrder) { o.To = o.From }, "upside down", ""},
			"future":      {func(o *agent.ResyncOrder) { o.To = now.Add(time.Hour) }, "in the future", "by now at the latest"},
			"source":      {func(o *agent.ResyncOrder) { o.Sources = []string{"x"} }, `no source "x"`, "there is trail"},
			"output":      {func(o *agent.ResyncOrder) { o.Outputs = []string{"siem", "x"} }, `no output "x"`, "there is siem"},
			"account": {func(o *agent.ResyncOrder) { o.Accounts = []string{"1"} }, `no account "1"`,
				"there is 111122220001, 111122220002"},
			"region":   {func(o *agent.ResyncOrder) { o.Regions = []string{"x"} }, `no region "x"`, "there is eu-central-1"},
			"log type": {func(o *agent.ResyncOrder) { o.LogTypes = []string{"x"} }, `no log type "x"`, "there is CloudTrail"},
		} {
			o := yesterday
			c.change(&o)
			_, err := a.Resync(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(fault.HintOf(err), c.hint) {
				t.Errorf("%s: %v, hint %q", name, err, fault.HintOf(err))
			}
			if _, again := a.CountResync(t.Context(), o); again == nil || again.Error() != err.Error() {
				t.Errorf("%s: counting says %v", name, again)
			}
		}
		if all, err := a.Resyncs(); len(all) != 0 || err != nil {
			t.Errorf("what was refused is there: %v, %v", all, err)
		}
		if _, err := a.CancelResync(t.Context(), 3); !errors.Is(err, agent.ErrNoResync) {
			t.Errorf("cancelling what is not there: %v", err)
		}
		// What appeared since the last discovery may be asked for.
		w.put(stream(3), now, 1)
		o := yesterday
		o.Accounts = []string{stream(3).Account}
		if _, err := a.Resync(t.Context(), o); err != nil {
			t.Errorf("a new account: %v", err)
		}
	})
}

// A dry run counts what the re-sync then sends.
func TestResyncCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "siem", "lake")
		now := time.Now()
		w.old(stream(1), now.Add(-10*time.Hour), 19) // these are delivered
		w.old(stream(2), now.Add(-10*time.Hour), 1)
		w.once()
		w.old(stream(1), now.Add(-60*day), 30)
		w.old(stream(2), now.Add(-40*day), 1500)
		time.Sleep(15 * time.Minute)
		order := agent.ResyncOrder{From: now.Add(-61 * day), To: now}
		s := w.open()
		a, err := agent.New(w.config(s))
		if err != nil {
			t.Fatal(err)
		}
		e, err := a.CountResync(t.Context(), order)
		if err != nil {
			t.Fatal(err)
		}
		lists, gets := w.bucket.Lists(""), w.bucket.Gets("")
		w.resync(order)
		w.only(1)
		c := w.memoryResyncs()[0].Count
		if e.Objects != 1530 || e.Sends != 2*1530 || e.Passed != 40 || c.Objects != e.Sends || c.Passed != e.Passed || 2*e.Bytes != c.Bytes {
			t.Errorf("counted %+v, then did %+v", e, c)
		}
		if n := w.bucket.Gets("") - gets; n > 1530*5/4 { // one may fall behind the other now and then
			t.Errorf("%d GETs for two outputs", n)
		}
		if n := w.bucket.Lists("") - lists; n > e.Lists*3/2 || e.Streams != 2 || len(e.Failed) > 0 {
			t.Errorf("%d LISTs, counted with %+v", n, e)
		}
		w.complete("siem", 0)
		w.complete("lake", 0)
	})
}

// A source that can't be listed keeps its own part waiting and no other, and
// the re-sync is done when that is.
func TestInvariant5_ResyncOfTwoSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other := new(agenttest.Bucket)
		var dead atomic.Bool
		other.Fail = func(op, _ string) agenttest.Failure {
			if dead.Load() {
				return failure(fault.Unreachable)
			}
			return agenttest.Failure{}
		}
		w.tune = func(c *agent.Config) {
			second := c.Sources[0]
			second.Name, second.Bucket, second.Store = "second", "other", other
			c.Sources = append(c.Sources, second)
		}
		at := time.Now().Add(-60 * day)
		w.old(stream(1), at, 50)
		key := w.key(stream(2), at)
		body := w.object(key, 3)
		other.PutAt(key, body, at)
		for i := range 3 { // it is in another bucket
			name := fmt.Sprintf("/%s#%d", key, i)
			w.want["other"+name] = w.want[bucketName+name]
			delete(w.want, bucketName+name)
		}
		w.once()
		w.resync(agent.ResyncOrder{From: at.Add(-day), To: at.Add(day)})
		dead.Store(true)
		w.during(func() {
			time.Sleep(10 * time.Minute)
			if c := w.memoryResyncs()[0]; c.State != progress.ResyncRunning || c.Count.Objects != 50 {
				t.Errorf("while one can't be listed: %+v", c)
			}
			dead.Store(false)
			time.Sleep(10 * time.Minute)
			if c := w.memoryResyncs()[0]; c.State != progress.ResyncDone || c.Count.Objects != 51 {
				t.Errorf("in the end: %+v", c)
			}
		})
		w.complete("siem", 0)
	})
}
