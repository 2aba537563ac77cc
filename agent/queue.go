package agent

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/listing"
)

// class is how urgent a job is.
type class int

const (
	live    class = iota // stamped within the last hour
	backlog              // older, and not listed before
	late                 // appeared behind what was listed, or parked and tried again
	redo                 // of a re-sync
	classes
)

// turns is the order in which the classes are served: what is of the last hour
// first, and each of the others with a share of its own. A class that has
// nothing gives its turn to the most urgent one that has.
var turns = [...]class{live, live, backlog, live, redo, live, late, live, backlog, live}

// queue holds a source's jobs until a download worker takes them: the classes
// by turns, the streams of a class in turn, and of a stream the oldest first.
// So neither a backlog nor one huge account can starve the rest. It is bounded
// by the listers, which stop listing when too much of theirs is open.
type queue struct {
	source *source

	mu      sync.Mutex
	changed *sync.Cond // a worker may find something
	lines   [classes]line
	aside   map[*delivery]*stock // for outputs that lag; the map never changes
	turn    int
	out     int          // jobs that workers have
	size    atomic.Int64 // of lines; read without mu: listers ask with their stream's mutex held
	coming  atomic.Int64 // objects that listings under way may bring
	crowd   []*lister    // for whose pages there was no room, in the order in which they came
	most    int64        // jobs that may wait before no backlog is listed
	closed  bool
}

// stock is the jobs put aside for an output that lags, oldest first. They take
// no room from what other outputs wait for.
type stock struct {
	lines [classes][]*job
	n     [classes]atomic.Int64 // of each line; read without the queue's mutex
}

// fill notes how many jobs there are of a class; the queue's mutex is held.
func (a *stock) fill(c class, jobs []*job) {
	a.lines[c] = jobs
	a.n[c].Store(int64(len(jobs)))
}

// standing is where a lister stands with the queue; guarded by its mutex.
type standing struct {
	inCrowd  bool
	waits    bool  // for room for n objects; else its place in the crowd is void
	n        int64 // that a page may bring
	behind   bool
	promised int64 // room kept for it, since it was woken
}

// What a job takes while it waits, generously, and how much of a source's
// memory may go to that: jobs are not counted in its budget.
const (
	jobBytes    = 1 << 10
	jobsShare   = 4
	leastJobs   = 8 * listing.MaxEntries // so that all workers may list at once
	mostJobs    = 32 * listing.MaxEntries
	crowdedWait = time.Second // before it is looked again whether there is room, or something more urgent
)

// line is the jobs of one class, by stream.
type line struct {
	streams []*stream // that have jobs of the class, in turn
	next    int
	served  int // how many jobs of that stream have gone in this turn of it
}

// inOneTurn is how many jobs of a stream go before the next stream has its
// turn. What is settled of one stream stands side by side in the checkpoint, so
// that a commit writes fewer pages the fewer streams it is of.
const inOneTurn = 8

// pass gives the turn to the next stream.
func (l *line) pass() { l.next, l.served = l.next+1, 0 }

// newQueue makes the queue of a source that has so many bytes of memory.
func newQueue(s *source, memory int64) *queue {
	q := &queue{
		source: s,
		aside:  make(map[*delivery]*stock),
		most:   min(max(memory/jobsShare/jobBytes, leastJobs), mostJobs),
	}
	for _, d := range s.outputs {
		q.aside[d] = new(stock)
	}
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
	q.size.Add(1)
	q.changed.Signal()
}

// admit takes room for n objects that a page of l may bring, for admitted to
// give back; false if there is none, and then l is woken when there is, if it
// wants to be. What is of the last hour has as much room again as what is behind.
func (q *queue) admit(l *lister, n int64, behind, wake bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coming.Add(-l.standing.promised) // for whatever it lists now
	l.standing.promised = 0
	if !q.fits(n, behind) {
		if !wake {
			return false
		}
		at := &l.standing
		at.waits, at.n, at.behind = true, n, behind
		if !at.inCrowd {
			at.inCrowd = true
			q.crowd = append(q.crowd, l)
		}
		return false
	}
	l.standing.waits = false
	q.coming.Add(n)
	return true
}

func (q *queue) fits(n int64, behind bool) bool {
	most := q.most
	if !behind {
		most *= 2
	}
	return q.size.Load()+q.coming.Load()+n <= most
}

func (q *queue) admitted(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coming.Add(-n)
	q.call()
}

// dismiss gives back what was promised to a lister that lists no more.
func (q *queue) dismiss(l *lister) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coming.Add(-l.standing.promised)
	l.standing.promised, l.standing.waits = 0, false
	q.call()
}

// call wakes those of the crowd, the first first, for whom there is room now;
// mu is held.
func (q *queue) call() {
	for len(q.crowd) > 0 {
		l := q.crowd[0]
		at := &l.standing
		if at.waits {
			if !q.fits(at.n, at.behind) {
				return
			}
			at.waits, at.promised = false, at.n
			q.coming.Add(at.n)
			l.stream.source.schedule.wake(l)
		}
		at.inCrowd = false
		q.crowd[0] = nil
		q.crowd = q.crowd[1:]
	}
}

// crowded reports whether there is no room for a backlog.
func (q *queue) crowded() bool { return q.size.Load() > q.most-listing.MaxEntries }

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

// stocked reports whether as much is put aside for an output as may be, of the
// last hour, if live, or else of all that is behind.
func (q *queue) stocked(out *delivery, live bool) bool {
	n := q.aside[out].n[:]
	if live {
		return n[0].Load() >= q.most
	}
	sum := int64(0)
	for i := range n[1:] {
		sum += n[1+i].Load()
	}
	return sum >= q.most/2
}

// len returns how many jobs wait.
func (q *queue) len() int {
	n := q.size.Load()
	for _, a := range q.aside {
		for c := range a.n {
			n += a.n[c].Load()
		}
	}
	return int(n)
}

// take waits for a job whose outputs can take records now; nil when the queue
// is closed. Whoever is given one calls done after it. What is for an output
// that lags is put aside, for that output alone: a slow one does not hold the
// others up.
func (q *queue) take() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed {
			return nil
		}
		j := q.pick()
		q.call()
		if j != nil {
			q.out++
			return j
		}
		q.changed.Wait()
	}
}

// done takes back what take gave: the job is done, or put again.
func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out--
}

// idle reports whether no job waits and no worker has one.
func (q *queue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.out == 0 && q.len() == 0
}

// pick returns the next job that can go, or nil.
func (q *queue) pick() *job {
	first := turns[q.turn%len(turns)]
	j := q.pickAside() // bounded by what that output takes
	if j == nil {
		j = q.pickOf(first)
	}
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

// pickAside returns the next job of those put aside whose output can take
// records now, the most urgent first, or nil.
func (q *queue) pickAside() *job {
	for out, a := range q.aside {
		if a.empty() || out.accepts(q.source) != hungry {
			continue
		}
		for c := range classes {
			for len(a.lines[c]) > 0 {
				j := a.lines[c][0]
				a.lines[c][0] = nil
				a.fill(c, a.lines[c][1:])
				if j.live() {
					return j
				}
			}
			a.lines[c] = nil
		}
	}
	return nil
}

func (a *stock) empty() bool {
	return !slices.ContainsFunc(a.lines[:], func(jobs []*job) bool { return len(jobs) > 0 })
}

// putAside keeps a job for an output that lags.
func (q *queue) putAside(j *job, out *delivery) {
	a := q.aside[out]
	a.fill(j.class, append(a.lines[j.class], j))
}

// leave lets go of what is put aside for an output whose lanes have just been
// taken out of the listing.
func (q *queue) leave(out *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a := q.aside[out]; a != nil { // it takes the source
		for c := range classes {
			a.fill(c, slices.DeleteFunc(a.lines[c], func(j *job) bool { return !j.live() }))
		}
	}
	q.changed.Broadcast()
}

// asideOf returns how many jobs wait for that output alone.
func (q *queue) asideOf(out *delivery) (n int) {
	a := q.aside[out]
	for c := range a.n {
		n += int(a.n[c].Load())
	}
	return n
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
		ready, rest, waits := j.split()
		if waits {
			l.pass()
			tried++
			continue
		}
		if l.served++; l.served == inOneTurn {
			l.pass()
		}
		q.drop(s, c)
		for _, t := range rest {
			slow := *j
			slow.targets = []*target{t}
			q.putAside(&slow, t.lane.out)
		}
		if len(ready) == 0 {
			continue
		}
		j.targets = ready
		return j
	}
	return nil
}

// drop removes the first job of a stream and class.
func (q *queue) drop(s *stream, c class) {
	l, jobs := &q.lines[c], &s.jobs[c]
	(*jobs)[0] = nil
	*jobs = (*jobs)[1:]
	q.size.Add(-1)
	if len(*jobs) > 0 {
		return
	}
	*jobs = nil
	i := slices.Index(l.streams, s)
	l.streams = slices.Delete(l.streams, i, i+1)
	switch {
	case i < l.next:
		l.next--
	case i == l.next:
		l.served = 0
	}
}

// split tells the targets whose output takes records now from those whose
// output lags. It waits while one of them is full that will soon have room: one
// download is to serve all that are in step.
func (j *job) split() (ready, rest []*target, waits bool) {
	alone := len(j.stream.source.outputs) == 1 // nobody to be held up
	for _, t := range j.targets {
		switch t.lane.out.accepts(j.stream.source) {
		case hungry:
			ready = append(ready, t)
		case full:
			waits = true
		case lagging:
			if alone {
				waits = true
				continue
			}
			rest = append(rest, t)
		}
	}
	return ready, rest, waits
}
