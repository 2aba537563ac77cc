package agent

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// schedule holds a source's listers until they are due. Those that are due are
// run in the order in which they became so, each by one worker.
type schedule struct {
	mu      sync.Mutex
	changed *sync.Cond
	ready   []*lister
	timers  map[*lister]*time.Timer
	closed  bool

	limit *rate.Limiter // nil = no cap
}

func newSchedule(listsPerMinute int) *schedule {
	s := &schedule{timers: make(map[*lister]*time.Timer)}
	s.changed = sync.NewCond(&s.mu)
	if listsPerMinute > 0 {
		s.limit = rate.NewLimiter(rate.Limit(float64(listsPerMinute)/60), max(1, listsPerMinute/60))
	}
	return s
}

// after makes l due in d. A lister is never in the schedule twice.
func (s *schedule) after(l *lister, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if d <= 0 {
		s.ready = append(s.ready, l)
		s.changed.Signal()
		return
	}
	s.timers[l] = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		delete(s.timers, l)
		s.ready = append(s.ready, l)
		s.changed.Signal()
	})
}

// next waits for a lister that is due; nil when the schedule is closed.
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
	return l
}

// close ends every next and forgets what was to come.
func (s *schedule) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, t := range s.timers {
		t.Stop()
	}
	clear(s.timers)
	s.ready = nil
	s.changed.Broadcast()
}

// wait waits until a LIST may be made.
func (s *schedule) wait(ctx context.Context) error {
	if s.limit == nil {
		return ctx.Err()
	}
	return s.limit.Wait(ctx)
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
