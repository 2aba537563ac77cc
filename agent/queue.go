package agent

import (
	"slices"
	"sync"
)

// class is how urgent a job is.
type class int

const (
	live    class = iota // stamped within the last hour
	backlog              // older, and not listed before
	late                 // appeared behind what was listed, or parked and tried again
	classes
)

// turns is the order in which the classes are served: what is of the last hour
// first, and each of the others with a share of its own. A class that has
// nothing gives its turn to the most urgent one that has.
var turns = [...]class{live, live, backlog, live, live, late, live, backlog}

// queue holds a source's jobs until a download worker takes them: the classes
// by turns, the streams of a class in turn, and of a stream the oldest first.
// So neither a backlog nor one huge account can starve the rest. It is bounded
// by the listers, which stop listing when too much of theirs is open.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond // a worker may find something
	lines   [classes]line
	turn    int
	size    int
	closed  bool
}

// line is the jobs of one class, by stream.
type line struct {
	streams []*stream // that have jobs of the class, in turn
	next    int
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put adds a job behind those of its stream and class.
func (q *queue) put(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l, jobs := &q.lines[j.class], &j.stream.jobs[j.class]
	if len(*jobs) == 0 {
		l.streams = append(l.streams, j.stream)
	}
	*jobs = append(*jobs, j)
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

// take waits for a job whose outputs can take records now; nil when the queue
// is closed. Of a job with several lanes it leaves those behind whose output
// lags, in the queue as a job of their own: a slow output does not hold the
// others up.
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

// pick returns the next job that can go, or nil.
func (q *queue) pick() *job {
	first := turns[q.turn%len(turns)]
	j := q.pickOf(first)
	for c := live; j == nil && c < classes; c++ {
		if c != first {
			j = q.pickOf(c)
		}
	}
	if j != nil {
		q.turn++
	}
	return j
}

// pickOf returns the next job of a class that can go, or nil. Where a stream's
// oldest job can't go it looks to the next stream, so that each keeps its order.
func (q *queue) pickOf(c class) *job {
	l := &q.lines[c]
	for tried := 0; tried < len(l.streams); {
		if l.next >= len(l.streams) {
			l.next = 0
		}
		s := l.streams[l.next]
		j := s.jobs[c][0]
		if !j.live() {
			q.drop(s, c)
			continue
		}
		ready, rest := j.split()
		if len(ready) == 0 {
			l.next++
			tried++
			continue
		}
		if len(rest) == 0 {
			q.drop(s, c)
		} else {
			other := *j
			other.targets = rest
			s.jobs[c][0] = &other
			j.targets = ready
		}
		l.next++
		return j
	}
	return nil
}

// drop removes the first job of a stream and class.
func (q *queue) drop(s *stream, c class) {
	l, jobs := &q.lines[c], &s.jobs[c]
	(*jobs)[0] = nil
	*jobs = (*jobs)[1:]
	q.size--
	if len(*jobs) > 0 {
		return
	}
	*jobs = nil
	i := slices.Index(l.streams, s)
	l.streams = slices.Delete(l.streams, i, i+1)
	if i < l.next {
		l.next--
	}
}

// split tells the targets whose output can take records now from the rest.
// None can while one of them is full that will soon have room: one download is
// to serve all that are in step.
func (j *job) split() (ready, rest []*target) {
	waits := false
	for _, t := range j.targets {
		switch t.lane.out.accepts() {
		case hungry:
			ready = append(ready, t)
		case full:
			waits = true
		case lagging:
			rest = append(rest, t)
		}
	}
	if waits {
		return nil, j.targets
	}
	return ready, rest
}
