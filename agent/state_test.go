package agent_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
)

// After a lost state the whole late horizon is gone over again, whatever start
// says: what was delivered then is not known any more. Once all sources have
// been met that is over.
func TestInvariant12_LostStateBeginsAtTheHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) { c.Sources[0].Start = func(now time.Time) time.Time { return now } }
		now := time.Now()
		for _, age := range []time.Duration{time.Hour, 3 * day, 29 * day} {
			key := w.key(stream(1), now.Add(-age))
			w.bucket.PutAt(key, w.object(key, 2), now.Add(-age))
		}
		w.memory.SetRebuilt(true)
		w.once()
		w.complete("siem", 0)
		if w.memory.Rebuilt() {
			t.Error("the lost state is not over")
		}
		w.once()
		w.complete("siem", 0)
	})
}

// An output that is added later begins when it first meets the source; what
// one that was removed still owed is dropped, and said.
func TestOutputsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "first")
		var log bytes.Buffer
		w.log = &log
		key := w.key(stream(1), time.Now().Add(-time.Hour))
		w.bucket.PutAt(key, w.object(key, 2), time.Now().Add(-time.Hour))
		w.once()
		w.complete("first", 0)

		time.Sleep(time.Hour)
		w.outputs["second"] = new(agenttest.Output)
		w.once()
		if n := len(w.outputs["second"].Taken()); n > 0 {
			t.Errorf("an output that begins now took %d records from before", n)
		}
		before := w.want
		w.want = make(map[string]string)
		time.Sleep(time.Minute)
		w.put(stream(1), time.Now(), 3)
		w.put(stream(2), time.Now(), 3) // a stream found later
		time.Sleep(15 * time.Minute)
		w.once()
		w.complete("second", 0)
		for name, raw := range before {
			w.want[name] = raw
		}
		w.complete("first", 0)

		second := w.outputs["second"]
		delete(w.outputs, "second")
		w.once()
		if !strings.Contains(log.String(), `"output":"second","objects_owed":0`) {
			t.Errorf("the removed output is not named:\n%s", log.String())
		}
		w.outputs["second"] = second
		sends := second.Sends()
		w.once()
		if second.Sends() != sends {
			t.Error("an output that came back took what was from before")
		}
	})
}

// An output that is switched off and on again goes on where it was.
func TestOutputSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "first", "second")
		w.put(stream(1), time.Now(), 3)
		w.once()
		second := w.outputs["second"]
		delete(w.outputs, "second")
		w.tune = func(c *agent.Config) { c.Dormant = []string{"second"} }
		time.Sleep(3 * day)
		w.put(stream(1), time.Now(), 3)
		w.once()
		w.complete("first", 0)
		w.outputs["second"] = second
		w.tune = nil
		w.once()
		w.complete("second", 0)
	})
}

// An account that is excluded is not listed any more, and goes on where it was
// when it is let in again.
func TestExcludedAndLetInAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 2)
		w.put(stream(2), time.Now(), 2)
		w.once()
		w.complete("siem", 0)
		w.tune = func(c *agent.Config) { c.Sources[0].ExcludeAccounts = []string{stream(2).Account} }
		time.Sleep(time.Hour)
		w.put(stream(2), time.Now(), 2)
		lists := w.bucket.Lists("AWSLogs/" + stream(2).Account)
		w.once()
		if n := w.bucket.Lists("AWSLogs/"+stream(2).Account) - lists; n > 0 {
			t.Errorf("%d LISTs of an excluded account", n)
		}
		w.tune = nil
		w.once()
		w.complete("siem", 0)
	})
}

// Without S3's time the local clock has to do.
func TestBucketWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bucket.NoTime = true
		w.put(stream(1), time.Now(), 2)
		w.during(func() {
			time.Sleep(time.Hour)
			w.put(stream(1), time.Now().Add(-3*day), 2)
			time.Sleep(25 * time.Hour)
		})
		w.complete("siem", 0)
	})
}
