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
	"github.com/trailpoll/trailpoll/agent/record"
)

// withStream makes the output one that confirms two seconds after the write.
func (w *world) withStream(name string) *agenttest.Stream {
	s := &agenttest.Stream{Delay: 2 * time.Second}
	w.outputs[name] = &s.Output
	w.streams = map[string]*agenttest.Stream{name: s}
	return s
}

// The connection breaks again and again before what was written is confirmed:
// all of it is read again from S3 and sent again, and nothing is lost whether
// it had arrived or not.
func TestInvariant1_UnconfirmedIsSentAgain(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				rng := rand.New(rand.NewPCG(seed, 3))
				s := w.withStream("siem")
				s.Arrives = func() bool { return rng.IntN(2) == 0 }
				now := time.Now()
				for n := range 3 {
					for i := range 30 {
						w.put(stream(n), now.Add(-time.Duration(i)*30*time.Minute), 1+rng.IntN(400))
					}
				}
				w.during(func() {
					for range 12 {
						time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
						s.Break()
					}
					time.Sleep(5 * time.Minute)
				})
				w.finish()
				w.complete("siem", len(w.want)*12)
				w.checkWatermarks()
			})
		})
	}
}

// Nothing is settled before it is confirmed: what was written right before a
// crash is sent again.
func TestInvariant1_WrittenIsNotSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.withStream("siem")
		w.put(stream(1), time.Now(), 50)
		w.crash(1500*time.Millisecond, false) // sent after batch_wait, confirmed 2 s later
		s.Break()
		if n := len(s.Taken()); n != 0 {
			t.Fatalf("%d records arrived", n)
		}
		w.finish()
		w.complete("siem", 0)
	})
}

// A record that is too large for the receiver is parked, the others of its
// batch are settled, though the answer comes with the confirmation.
func TestInvariant5_OversizeIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.withStream("siem")
		s.Oversize = func(r *record.Record) bool { return r.Index == 7 }
		key := w.put(stream(1), time.Now(), 150)
		w.finish()
		p := w.parked()
		if len(p) != 1 || p[0].Reason != record.Oversize || p[0].Record != 7 {
			t.Errorf("parked: %+v", p)
		}
		delete(w.want, fmt.Sprintf("%s/%s#7", bucketName, key))
		w.complete("siem", 0)
	})
}

// Commits fail while a connection goes on to confirm: nothing more is written
// than what goes out within the confirmation's delay.
func TestInvariant2_CommitsFailWhileConfirming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.withStream("siem")
		var full atomic.Bool
		w.wrap = func(s store) agent.Checkpoint {
			return &faultyCheckpoint{store: s, t: t, fail: func() agenttest.Failure {
				if full.Load() {
					return agenttest.Failure{Err: errInjected}
				}
				return agenttest.Failure{}
			}}
		}
		w.put(stream(0), time.Now(), 1)
		w.during(func() {
			time.Sleep(20 * time.Second)
			full.Store(true)
			for range 30 {
				w.put(stream(0), time.Now(), 1000)
				time.Sleep(time.Minute)
			}
			// One poll's worth goes out before the first confirmation is there;
			// from then on the commit that fails holds everything up.
			if n := len(w.outputs["siem"].Taken()); n > 3001 {
				t.Errorf("%d records were sent while commits fail", n)
			}
			full.Store(false)
			time.Sleep(10 * time.Minute)
		})
		w.complete("siem", 0)
	})
}
