package agent_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Everything fails at once, at random, for days, with three outputs of which
// one confirms later: orderly stops, kills, holds. When all is mended, nothing
// is missing.
func TestInvariant1And3_Chaos(t *testing.T) {
	n := 6
	if testing.Short() {
		n = 2
	}
	if s := os.Getenv("TRAILPOLL_SEEDS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	for seed := range uint64(n) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, seed) })
		})
	}
}

func chaos(t *testing.T, seed uint64) {
	w := newWorld(t, "plain", "other", "stream")
	s := &agenttest.Stream{Delay: 2 * time.Second}
	w.outputs["stream"] = &s.Output
	w.streams = map[string]*agenttest.Stream{"stream": s}
	w.disk = seed%3 == 0
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 99))
	roll := func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n) == 0
	}
	pick := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	healed := false
	ok := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return healed
	}
	s.Arrives = func() bool { return roll(2) }
	w.bucket.Latency = 30 * time.Millisecond
	w.bucket.Fail = func(op, what string) agenttest.Failure {
		if ok() || !roll(12) {
			return agenttest.Failure{}
		}
		if op == "list" {
			k := []fault.Kind{fault.Temporary, fault.Denied, fault.Throttled, fault.Unreachable}
			return failure(k[pick(len(k))])
		}
		k := []fault.Kind{fault.Temporary, fault.Denied, fault.KMSDenied, fault.Changed, fault.Gone, fault.Unreachable, fault.Archived}
		if n := pick(len(k) + 1); n < len(k) {
			return agenttest.Failure{Err: &fault.Error{Kind: k[n], Err: errInjected}}
		}
		return agenttest.Failure{Cut: 15}
	}
	for name, o := range w.outputs {
		if name != "stream" {
			o.Latency = 20 * time.Millisecond
		}
		bad := 0
		o.Fail = func(b *record.Batch) agenttest.Failure {
			if ok() {
				return agenttest.Failure{}
			}
			if roll(60) {
				mu.Lock()
				bad = rng.IntN(40)
				mu.Unlock()
			}
			mu.Lock()
			down := bad > 0
			if down {
				bad--
			}
			mu.Unlock()
			switch {
			case down:
				k := []fault.Kind{fault.Temporary, fault.Held, fault.Temporary, fault.Throttled}
				return agenttest.Failure{Err: &fault.Error{Kind: k[pick(len(k))], Err: errInjected}, Done: roll(3) && name != "stream"}
			case roll(30):
				k := []fault.Kind{fault.TooLarge, fault.Refused, fault.Temporary}
				return failure(k[pick(len(k))])
			}
			return agenttest.Failure{}
		}
	}
	w.wrap = func(st store) agent.Checkpoint {
		return &faultyCheckpoint{
			store: st, t: t,
			delay: func() time.Duration { return time.Duration(pick(200)) * time.Millisecond },
			fail: func() agenttest.Failure {
				if ok() || !roll(10) {
					return agenttest.Failure{}
				}
				return agenttest.Failure{Err: errInjected, Done: roll(2)}
			},
		}
	}
	w.tune = func(c *agent.Config) {
		c.Sources[0].Start = func(now time.Time) time.Time { return now.Add(-3 * day) }
	}
	for i := range 600 {
		w.put(stream(i%4), time.Now().Add(-time.Duration(pick(3*24*60-10))*time.Minute), 1+pick(260))
	}
	feed := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			time.Sleep(time.Duration(1+pick(600)) * time.Second)
			back := time.Duration(pick(10)) * time.Minute
			if roll(5) {
				back = time.Duration(pick(29*24)) * time.Hour
			}
			w.put(stream(pick(4)), time.Now().Add(-back), 1+pick(120))
			if roll(4) {
				s.Break()
			}
		}
	}
	for range 12 {
		d := time.Duration(1+pick(8*3600)) * time.Second
		if roll(2) {
			w.during(func() { feed(d) })
			continue
		}
		done := make(chan bool)
		go func() {
			defer close(done)
			w.kill(d)
		}()
		feed(d)
		<-done
		s.Break()
	}
	mu.Lock()
	healed = true
	mu.Unlock()
	w.during(func() { time.Sleep(50 * time.Hour) })
	w.finish()
	for _, e := range w.parked() {
		t.Errorf("still parked: %s %d %s", e.Position, e.Record, e.Reason)
	}
	for name := range w.outputs {
		w.complete(name, 1<<30)
		n := 0
		for _, k := range w.outputs[name].Taken() {
			n += k - 1
		}
		t.Logf("%s: %d records, %d repeats", name, len(w.want), n)
	}
}

// kill runs an agent and kills it after d.
func (w *world) kill(d time.Duration) {
	st := w.open()
	defer st.Close()
	a, err := agent.New(w.config(st))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, abort := context.WithTimeout(context.Background(), d)
	defer abort()
	if _, err := a.Run(ctx, ctx); err != nil {
		w.t.Errorf("Run: %v", err)
	}
}
