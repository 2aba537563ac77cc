package agent_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

const (
	day     = 24 * time.Hour
	horizon = 30 * day
)

// arrival is an object of the simulation.
type arrival struct {
	key   string
	stamp time.Time
	at    time.Time // when it appears, by S3's clock
	why   string    // what decides how late it is
}

// simulation is a month of a bucket's life: streams of different busyness,
// delays with a heavy tail up to the whole late horizon, names out of order,
// redelivery into the original and into the delivery day's folder, crashes, an
// agent that is down and an output that is held for ten days, and a local clock
// that steps by weeks.
type simulation struct {
	*world
	seed     uint64
	rng      *rand.Rand
	streams  int
	days     int
	perDay   float64 // objects a day of the median stream
	arrivals []arrival

	mu       sync.Mutex
	held     bool
	foundAt  map[string]time.Time // when an output first took it, by key
	crashes  int
	stops    int
	stepped  time.Duration
	appeared map[string]time.Time
	up       [][2]time.Time // when the agent ran
}

func newSimulation(t *testing.T, seed uint64, streams, days int) *simulation {
	s := &simulation{
		world: newWorld(t, "first", "second"), seed: seed, rng: rand.New(rand.NewPCG(seed, 1)),
		streams: streams, days: days, perDay: 3,
		foundAt: make(map[string]time.Time), appeared: make(map[string]time.Time),
	}
	s.tune = func(c *agent.Config) {
		src := &c.Sources[0]
		src.Refresh, src.IdleRefresh, src.Discovery = 10*time.Minute, 2*time.Hour, 6*time.Hour
		step := s.stepped
		c.Now = func() time.Time { return time.Now().Add(step) }
	}
	s.outputs["first"].Fail = func(b *record.Batch) agenttest.Failure {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range b.Records {
			if k := b.Records[i].Object.Key; s.foundAt[k].IsZero() {
				s.foundAt[k] = time.Now()
			}
		}
		return agenttest.Failure{}
	}
	s.outputs["second"].Fail = func(*record.Batch) agenttest.Failure {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held {
			return failure(fault.Held)
		}
		return agenttest.Failure{}
	}
	s.plan()
	return s
}

// plan draws all arrivals, in the order in which they appear.
func (s *simulation) plan() {
	begin := time.Now().UTC().Truncate(5 * time.Minute)
	end := begin.Add(time.Duration(s.days) * day)
	for n := range s.streams {
		st := stream(n)
		rate := s.perDay * math.Exp(s.rng.NormFloat64()) // objects a day
		for at := begin.Add(-2 * day); at.Before(end); {
			at = at.Add(time.Duration(s.rng.ExpFloat64() / rate * float64(day)))
			s.arrivals = append(s.arrivals, s.arrival(st, at))
		}
	}
	// What was there before the start and is too old, and what is as old but
	// appears only after the source was first seen.
	for n := range s.streams {
		old := begin.Add(-time.Duration(2+s.rng.IntN(20)) * day)
		s.arrivals = append(s.arrivals,
			arrival{s.key(stream(n), old), old, old, "too old"},
			arrival{s.key(stream(n), old), old, old.Add(horizon - time.Minute), "late"})
	}
	slices.SortFunc(s.arrivals, func(a, b arrival) int { return a.at.Compare(b.at) })
}

// arrival draws how late an object of that stamp appears, and under which day.
func (s *simulation) arrival(st progress.Stream, stamp time.Time) arrival {
	stamp = stamp.Truncate(5 * time.Minute)
	key := s.key(st, stamp)
	switch p := s.rng.Float64(); {
	case p < 0.90: // names run ahead of arrival and behind it by minutes
		return arrival{key, stamp, stamp.Add(time.Duration((s.rng.Float64()*10 - 5) * float64(time.Minute))), "usual"}
	case p < 0.96:
		return arrival{key, stamp, stamp.Add(time.Duration(s.rng.ExpFloat64() * float64(20*time.Minute))), "minutes"}
	default: // a heavy tail up to the horizon
		delay := time.Duration(math.Pow(float64(horizon)/float64(time.Hour), s.rng.Float64()) * float64(time.Hour))
		delay = min(delay, horizon-time.Minute)
		at := stamp.Add(delay)
		if s.rng.IntN(2) == 0 { // delivered again, under the day of delivery
			parts := strings.Split(key, "/")
			d := strings.Split(at.Format("2006/01/02"), "/")
			copy(parts[4:7], d)
			key = strings.Join(parts, "/")
		}
		return arrival{key, stamp, at, "late"}
	}
}

// deliver writes objects as their time comes.
func (s *simulation) deliver(ctx context.Context) {
	for _, a := range s.arrivals {
		if wait := time.Until(a.at); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
		body := s.object(a.key, 1)
		s.bucket.PutAt(a.key, body, a.at)
		s.mu.Lock()
		s.appeared[a.key] = a.at
		s.mu.Unlock()
		if a.why == "too old" {
			delete(s.want, fmt.Sprintf("%s/%s#0", bucketName, a.key))
		}
	}
}

// run lives through the month.
func (s *simulation) run() {
	// What appeared before the beginning is there at once.
	n := 0
	for n < len(s.arrivals) && !s.arrivals[n].at.After(time.Now()) {
		a := s.arrivals[n]
		s.bucket.PutAt(a.key, s.object(a.key, 1), a.at)
		if a.stamp.Before(time.Now().Add(-day)) {
			delete(s.want, fmt.Sprintf("%s/%s#0", bucketName, a.key)) // before the start
		} else {
			s.appeared[a.key] = time.Now()
		}
		n++
	}
	s.arrivals = s.arrivals[n:]
	last := s.arrivals[len(s.arrivals)-1].at
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.deliver(ctx) })

	begin := time.Now()
	downAt := begin.Add(time.Duration(3+s.rng.IntN(8)) * day)
	holdAt := begin.Add(time.Duration(s.rng.IntN(18)) * day)
	hold := time.AfterFunc(time.Until(holdAt), func() { s.setHeld(true) })
	release := time.AfterFunc(time.Until(holdAt.Add(10*day)), func() { s.setHeld(false) })
	defer hold.Stop()
	defer release.Stop()
	for time.Now().Before(last) {
		s.segment(time.Duration(6+s.rng.IntN(60))*time.Hour, s.rng.IntN(3) > 0)
		if !downAt.IsZero() && time.Now().After(downAt) {
			downAt = time.Time{}
			time.Sleep(10 * day)
		} else {
			time.Sleep(time.Duration(s.rng.ExpFloat64() * float64(20*time.Minute)))
		}
		s.stepped = time.Duration(s.rng.IntN(60)-30) * day
	}
	s.setHeld(false)
	wg.Wait()
	cancel()
	s.stepped = 0
	s.segment(26*time.Hour, false)
}

func (s *simulation) setHeld(v bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = v
}

// segment runs the agent for a while, and stops or kills it.
func (s *simulation) segment(d time.Duration, kill bool) {
	began := time.Now()
	defer func() { s.up = append(s.up, [2]time.Time{began, time.Now()}) }()
	if !kill {
		s.stops++
		s.during(func() { time.Sleep(d) })
		return
	}
	s.crashes++
	var dead bool
	var mu sync.Mutex
	ctx, abort := context.WithCancel(context.Background())
	defer abort()
	a, err := agent.New(s.config(&faultyCheckpoint{store: s.memory, t: s.t, fail: func() agenttest.Failure {
		mu.Lock()
		defer mu.Unlock()
		if dead {
			return agenttest.Failure{Err: errInjected}
		}
		return agenttest.Failure{}
	}}))
	if err != nil {
		s.t.Fatal(err)
	}
	time.AfterFunc(d, func() {
		mu.Lock()
		dead = true
		mu.Unlock()
		abort()
	})
	if _, err := a.Run(ctx, ctx); err != nil {
		s.t.Errorf("Run: %v", err)
	}
}

// lost returns how many objects an output did not get.
func (s *simulation) lost(output string) (n int) {
	taken := s.outputs[output].Taken()
	for name := range s.want {
		if taken[name] == 0 {
			n++
		}
	}
	return n
}

// waited returns for how much of a time the agent ran.
func (s *simulation) waited(from, to time.Time) (d time.Duration) {
	for _, u := range s.up {
		a, b := u[0], u[1]
		if from.After(a) {
			a = from
		}
		if to.Before(b) {
			b = to
		}
		d += max(0, b.Sub(a))
	}
	return d
}

// table prints how long after it appeared each object was found.
func (s *simulation) table() {
	why := make(map[string]string)
	for _, a := range s.arrivals {
		why[a.key] = a.why
	}
	waits := make(map[string][]time.Duration)
	for key, at := range s.foundAt {
		if w := why[key]; w != "" {
			waits[w] = append(waits[w], s.waited(s.appeared[key], at))
		}
	}
	s.t.Logf("seed %d: %d objects, %d LISTs, %d crashes, %d stops; found after so much time with the agent up:", s.seed, len(s.want), s.bucket.Lists(""), s.crashes, s.stops)
	for _, w := range []string{"usual", "minutes", "late"} {
		x := waits[w]
		if len(x) == 0 {
			continue
		}
		slices.Sort(x)
		at := func(p float64) time.Duration { return x[int(p*float64(len(x)-1))].Round(time.Minute) }
		s.t.Logf("%-8s %6d objects: half within %v, 90 %% within %v, 99 %% within %v, all within %v", w, len(x), at(.5), at(.9), at(.99), at(1))
	}
}

// seeds returns the seeds to run: a few, or as many as TRAILPOLL_SEEDS says.
func seeds(t *testing.T, few int) []uint64 {
	n := few
	if v := os.Getenv("TRAILPOLL_SEEDS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatalf("TRAILPOLL_SEEDS: %v", err)
		}
	}
	var all []uint64
	for i := range n {
		all = append(all, uint64(i))
	}
	return all
}

func TestInvariant3_Simulation(t *testing.T) {
	for _, seed := range seeds(t, 1) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				streams := 200
				if raced {
					streams = 30
				}
				s := newSimulation(t, seed, streams, 30)
				s.run()
				s.table()
				s.complete("first", s.crashes*400)
				s.complete("second", s.crashes*400)
				s.checkWatermarks()
				if t.Failed() {
					t.Logf("seed %d shows it again", seed)
				}
			})
		})
	}
}

// The simulation bites: what others do loses objects in it.
func TestInvariant3_SimulationBites(t *testing.T) {
	for name, reach := range map[string]func(agent.PassKind, time.Time, progress.Head, *agent.SourceConfig, time.Time) time.Time{
		"start after the last key": func(_ agent.PassKind, listed time.Time, _ progress.Head, _ *agent.SourceConfig, _ time.Time) time.Time {
			return listed
		},
		"a sweep that reaches back from now": func(kind agent.PassKind, listed time.Time, _ progress.Head, c *agent.SourceConfig, now time.Time) time.Time {
			switch kind {
			case agent.DailyPass:
				return now.Add(-c.LateHorizon)
			case agent.HourlyPass:
				return now.Add(-day)
			default:
				return listed.Add(-c.LookBack)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t, 0, 30, 30)
				s.bites = true
				tune := s.tune
				s.tune = func(c *agent.Config) {
					tune(c)
					c.SetReach(reach)
				}
				s.run()
				n := s.lost("first")
				if n == 0 {
					t.Errorf("%s lost nothing: the simulation does not bite", name)
				}
				t.Logf("%s lost %d of %d objects", name, n, len(s.want))
			})
		})
	}
}
