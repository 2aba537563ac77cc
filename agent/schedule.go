package agent

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// schedule holds a source's listers until they are due. Those that are due are
// run in the order in which they became so, each by one worker at a time.
type schedule struct {
	mu      sync.Mutex
	changed *sync.Cond
	ready   []*lister
	places  map[*lister]*place
	closed  bool

	limit *rate.Limiter // nil = no cap
	spare int           // LISTs that were waited for and not made
}

// place is where a lister is in the schedule.
type place struct {
	timer   *time.Timer // until it is due; nil if it is due, or being run
	running bool
	woken   bool // while it was run
}

func newSchedule(listsPerMinute int) *schedule {
	s := &schedule{places: make(map[*lister]*place)}
	s.changed = sync.NewCond(&s.mu)
	if listsPerMinute > 0 {
		s.limit = rate.NewLimiter(rate.Limit(float64(listsPerMinute)/60), max(1, listsPerMinute/60))
	}
	return s
}

// wake makes l due at once, whether it waits, is new or is being run.
func (s *schedule) wake(l *lister) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[l]
	switch {
	case s.closed:
	case p == nil:
		s.places[l] = &place{}
		s.push(l)
	case p.running:
		p.woken = true
	case p.timer != nil && p.timer.Stop():
		p.timer = nil
		s.push(l)
	}
}

func (s *schedule) push(l *lister) {
	s.ready = append(s.ready, l)
	s.changed.Signal()
}

// next waits for a lister that is due; nil when the schedule is closed. Whoever
// is given it runs it and hands it back with done.
func (s *schedule) next() *lister {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ready) == 0 && !s.closed {
		s.changed.Wait()
	}
	if s.closed {
		return nil
	}
	l := s.ready[0]
	s.ready[0] = nil
	s.ready = s.ready[1:]
	s.places[l].running = true
	return l
}

// done takes back a lister that was run. It is due again in d; if that is
// negative, only when it is woken.
func (s *schedule) done(l *lister, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	p := s.places[l]
	p.running = false
	switch {
	case p.woken || d == 0:
		p.woken = false
		s.push(l)
	case d < 0:
		delete(s.places, l)
	default:
		p.timer = time.AfterFunc(d, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.closed && p.timer != nil {
				p.timer = nil
				s.push(l)
			}
		})
	}
}

// close ends every next and forgets what was to come.
func (s *schedule) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.places {
		if p.timer != nil {
			p.timer.Stop()
		}
	}
	clear(s.places)
	s.ready = nil
	s.changed.Broadcast()
}

// wait waits until a LIST may be made.
func (s *schedule) wait(ctx context.Context) error {
	if s.limit == nil {
		return ctx.Err()
	}
	s.mu.Lock()
	if s.spare > 0 {
		s.spare--
		s.mu.Unlock()
		return ctx.Err()
	}
	s.mu.Unlock()
	return s.limit.Wait(ctx)
}

// unused gives back a LIST that was waited for and is not made, as far as the
// cap allows so many at once.
func (s *schedule) unused() {
	if s.limit == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = min(s.spare+1, s.limit.Burst())
}

// jitter spreads d by a tenth to either side, so that a thousand streams don't
// list in the same second.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

// expBackoff returns the n-th delay (n from 1) of an exponential backoff with
// full jitter in its upper half.
func expBackoff(n int, first, most time.Duration) time.Duration {
	d := most
	if n < 30 && first<<(n-1) < most {
		d = first << (n - 1)
	}
	return d/2 + time.Duration(rand.Int64N(int64(d/2)+1))
}
