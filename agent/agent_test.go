package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnceDeliversWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		now := time.Now()
		for s := range 5 {
			for i := range 20 {
				w.put(stream(s), now.Add(-time.Duration(i)*time.Hour), 1+i*7)
			}
		}
		w.finish()
		w.complete("siem", 0)
		sends := w.outputs["siem"].Sends()
		w.finish()
		if n := w.outputs["siem"].Sends(); n != sends {
			t.Errorf("a second run sent %d batches", n-sends)
		}
		w.complete("siem", 0)
	})
}

func TestNewObjectIsSentWithinOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 3)
		w.during(func() {
			time.Sleep(5 * time.Second)
			w.complete("siem", 0)
			w.put(stream(1), time.Now(), 3)
			time.Sleep(66*time.Second + 2*time.Second) // refresh with its jitter, and the batch's wait
			w.complete("siem", 0)
		})
	})
}

func TestNewStreamJoinsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 3)
		w.during(func() {
			time.Sleep(time.Minute)
			w.put(stream(2), time.Now(), 3)
			time.Sleep(20 * time.Minute)
			w.complete("siem", 0)
		})
	})
}
