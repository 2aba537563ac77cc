package agent

import (
	"slices"
	"sync"
)

// queue holds a source's jobs until a download worker takes them: oldest first
// within a stream, the streams in turn, so that one huge account can't starve
// the rest. It is bounded by the listers, which stop listing when too much of
// theirs is open.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond // a worker may find something
	streams []*stream  // that have jobs, in turn
	next    int
	size    int
	closed  bool
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put adds a job behind those of its stream.
func (q *queue) put(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := j.stream
	if len(s.jobs) == 0 {
		q.streams = append(q.streams, s)
	}
	s.jobs = append(s.jobs, j)
	q.size++
	q.changed.Signal()
}

// wake makes workers look again: an output can take more, or less.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.changed.Broadcast()
}

// close ends every take.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// len returns how many jobs wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.size
}

// take waits for a job whose output can take records now; nil when the queue
// is closed. Of a job with several lanes it takes those that can, and leaves
// the others in the queue as a job of their own: a slow output does not hold
// the others up.
func (q *queue) take() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed {
			return nil
		}
		if j := q.pick(); j != nil {
			return j
		}
		q.changed.Wait()
	}
}

// pick returns the next job that can go, or nil. Where a stream's oldest job
// can't go it looks to the next stream, so that each stream keeps its order.
func (q *queue) pick() *job {
	for tried := 0; tried < len(q.streams); {
		if q.next >= len(q.streams) {
			q.next = 0
		}
		s := q.streams[q.next]
		j := s.jobs[0]
		if !j.live() {
			q.drop(s)
			continue
		}
		ready, rest := j.split()
		if len(ready) == 0 {
			q.next++
			tried++
			continue
		}
		if len(rest) == 0 {
			q.drop(s)
		} else {
			other := *j
			other.targets = rest
			s.jobs[0] = &other
			j.targets = ready
		}
		q.next++
		return j
	}
	return nil
}

// drop removes the first job of s.
func (q *queue) drop(s *stream) {
	s.jobs[0] = nil
	s.jobs = s.jobs[1:]
	q.size--
	if len(s.jobs) > 0 {
		return
	}
	s.jobs = nil
	i := slices.Index(q.streams, s)
	q.streams = slices.Delete(q.streams, i, i+1)
	if i < q.next {
		q.next--
	}
}

// split tells the targets whose output can take records now from the rest.
func (j *job) split() (ready, rest []*target) {
	for i, t := range j.targets {
		switch {
		case !t.lane.out.accepts():
			if ready == nil && rest == nil {
				ready = slices.Clone(j.targets[:i])
			}
			rest = append(rest, t)
		case rest != nil:
			ready = append(ready, t)
		}
	}
	if rest == nil {
		return j.targets, nil
	}
	return ready, rest
}
