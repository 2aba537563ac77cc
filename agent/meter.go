package agent

import (
	"sync"
	"sync/atomic"
	"time"
)

// meter counts what happened, by the second for the last minute.
type meter struct {
	total atomic.Int64

	mu      sync.Mutex
	began   time.Time // monotonic
	seconds ring
}

// ring is the counts of the last len(n) periods; what is older is forgotten.
type ring struct {
	n    []int64
	last int64 // the newest period that is counted
}

const meterSeconds = 61

func newMeter() *meter {
	return &meter{began: time.Now(), seconds: ring{n: make([]int64, meterSeconds)}}
}

// reach makes p the newest period.
func (r *ring) reach(p int64) {
	if p-r.last >= int64(len(r.n)) {
		clear(r.n)
		r.last = p
	}
	for r.last < p {
		r.last++
		r.n[r.last%int64(len(r.n))] = 0
	}
}

func (r *ring) add(p, n int64) {
	r.reach(p)
	r.n[p%int64(len(r.n))] += n
}

// add counts n now.
func (m *meter) add(n int) {
	if n == 0 {
		return
	}
	m.total.Add(int64(n))
	m.mu.Lock()
	defer m.mu.Unlock()
	at := time.Since(m.began)
	m.seconds.add(int64(at/time.Second), int64(n))
}

// perSecond returns the rate of the last minute, or since the meter was made.
func (m *meter) perSecond() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := time.Since(m.began)
	m.seconds.reach(int64(at / time.Second))
	sum := int64(0)
	for _, n := range m.seconds.n {
		sum += n
	}
	return float64(sum) / min(max(at.Seconds(), 1), meterSeconds)
}

// hourCount counts what happened in the last hour, in steps of five minutes.
type hourCount struct {
	mu    sync.Mutex
	began time.Time // monotonic
	steps ring
}

const (
	hourlyStep  = 5 * time.Minute
	hourlySteps = 13 // the last hour, and what has gone of the step under way
)

func newHourCount() *hourCount {
	return &hourCount{began: time.Now(), steps: ring{n: make([]int64, hourlySteps)}}
}

func (h *hourCount) add(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps.add(int64(time.Since(h.began)/hourlyStep), n)
}

// perHour returns how much an hour it is, by the last hour; by all that there
// is, but not by less than five minutes, while that is less.
func (h *hourCount) perHour() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := time.Since(h.began)
	h.steps.reach(int64(at / hourlyStep))
	sum := int64(0)
	for _, n := range h.steps.n {
		sum += n
	}
	span := min(at, (hourlySteps-1)*hourlyStep+at%hourlyStep)
	return int(float64(sum)*float64(time.Hour)/float64(max(span, hourlyStep)) + 0.5)
}

// latencyBounds are the upper bounds of the buckets of a latency, in seconds.
var latencyBounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// latency counts how long something took. It may be used from any goroutine.
type latency struct {
	counts [len(latencyBounds) + 1]atomic.Uint64
	nanos  atomic.Int64
}

func (l *latency) note(took time.Duration) {
	i := 0
	for i < len(latencyBounds) && took.Seconds() > latencyBounds[i] {
		i++
	}
	l.counts[i].Add(1)
	l.nanos.Add(int64(took))
}

// Latency is how often something took how long.
type Latency struct {
	Bounds []float64 // seconds, ascending
	Counts []uint64  // took at most Bounds[i] and more than the bound before; the last: more than all
	Sum    float64   // seconds
}

func (l *latency) snapshot() Latency {
	s := Latency{Bounds: latencyBounds[:], Counts: make([]uint64, len(l.counts)), Sum: time.Duration(l.nanos.Load()).Seconds()}
	for i := range l.counts {
		s.Counts[i] = l.counts[i].Load()
	}
	return s
}
