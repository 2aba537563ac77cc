package agent

import (
	"container/heap"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// lane is a lane's progress in memory: what of it has been found and is not
// settled yet, and how far its watermark may go. All of it is guarded by its
// stream's mutex.
type lane struct {
	id    progress.Lane
	of    *stream
	begin progress.Begin
	out   *delivery
	// head is the lane's head as the next commit will write it.
	head progress.Head

	// listed: all positions up to it have been listed, and those that were not
	// settled are in open.
	listed string
	// open are the objects found and not durably settled, by position. An
	// object stays in it until its settlement is committed, so that a listing
	// which looks here first and in the checkpoint second never takes it for
	// new.
	open   map[string]*target
	order  positionHeap
	sweeps []*sweep
	// hourly and daily are when sweeps last listed to the end. The next are due
	// by these: one that waits for an object to settle need not be repeated at
	// every poll. They reach back from those that were completed, all the same.
	hourly, daily time.Time
	// older are how many of the open ones are not of the class live; failing,
	// how many of those wait to be tried again.
	older, failing int
	// retrying are the parked objects being tried again, by position.
	retrying map[string]*target
	// resyncing are the objects that a re-sync has found in the lane, which are
	// not durably settled, by position. What a listing wants of them, too, is
	// in open as well.
	resyncing map[string]*target
	// part is the part of a re-sync that is being worked at, nil if none.
	part *resyncLane
	// listedOnce: a pass has gone to its end since the lane last began.
	listedOnce bool
	seen       laneSeen
}

// sweep is a sweep of one lane that has not completed: it completes when it
// has listed to the end and every object that it met is settled. Only then may
// the next one reach back from it.
type sweep struct {
	daily  bool
	at     time.Time // when it began to list, by S3's clock
	open   int       // objects met that are not settled
	listed bool
}

// opening is an open object's place in the order of the lane.
type opening struct {
	target *target
	prev   string // the position listed just before it
}

// positionHeap is a heap of openings by position, the least first.
type positionHeap []opening

func (h positionHeap) Len() int           { return len(h) }
func (h positionHeap) Less(i, j int) bool { return h[i].target.position < h[j].target.position }
func (h positionHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *positionHeap) Push(x any)        { *h = append(*h, x.(opening)) }
func (h *positionHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = opening{}
	*h = old[:len(old)-1]
	return x
}

// add notes an object that was found and is to be settled; prev is the
// position listed just before it.
func (l *lane) add(t *target, prev string) {
	l.open[t.position] = t
	if t.class != live {
		l.older++
	}
	heap.Push(&l.order, opening{t, prev})
}

// durable lets go of an object whose settlement is committed.
func (l *lane) durable(t *target) {
	if t.resync != nil {
		t.resync.durable(t)
	}
	if l.open[t.position] != t {
		return
	}
	delete(l.open, t.position)
	if t.class != live {
		l.older--
	}
	if t.suspected {
		t.suspected = false
		l.failing--
	}
	l.settledHere(t)
}

// wait makes a sweep wait for an object that it met.
func (s *sweep) wait(t *target) {
	if s == nil || t.settled {
		return
	}
	s.open++
	t.sweeps = append(t.sweeps, s)
}

// settle notes that the object will be settled by the next commit, and moves
// the lane's head as far as that allows.
func (l *lane) settle(t *target) {
	if t.settled {
		return
	}
	t.settled = true
	for _, s := range t.sweeps {
		s.open--
	}
	t.sweeps = nil
}

// advance moves the head as far as what is listed and settled allows, and
// reports whether it moved. horizon and lookBack are the source's.
func (l *lane) advance(floor func(time.Time) string, stamp func(string) (time.Time, bool), horizon, lookBack time.Duration) bool {
	before := l.head
	for len(l.order) > 0 && l.order[0].target.settled {
		heap.Pop(&l.order)
	}
	if len(l.order) > 2*len(l.open)+laneWindow {
		// One open object must not keep all that were settled behind it.
		l.order = slices.DeleteFunc(l.order, func(o opening) bool { return o.target.settled })
		heap.Init(&l.order)
	}
	to := l.listed
	if len(l.order) > 0 {
		// What comes before the first open object is settled, as far as it has
		// been listed: a pass over the last hour is ahead of that.
		to = min(to, l.order[0].prev)
	}
	// An open object below the watermark is a late one: it holds the watermark
	// where it is, and never takes it back.
	l.head.Watermark = max(l.head.Watermark, to)

	open := l.sweeps[:0]
	for _, s := range l.sweeps {
		switch {
		case !s.listed || s.open > 0:
			open = append(open, s)
			continue
		case s.daily && s.at.After(l.head.Daily):
			l.head.Daily = s.at
		}
		if s.at.After(l.head.Hourly) {
			l.head.Hourly = s.at // a daily sweep goes over the last day, too
		}
	}
	clear(l.sweeps[len(open):])
	l.sweeps = open

	// The next daily sweep begins at Daily − horizon, a tail at watermark −
	// look-back: nothing below both will be listed again.
	if l.head.Watermark == before.Watermark && l.head.Daily.Equal(before.Daily) && l.head.Pruned != "" {
		return l.head != before
	}
	if w, ok := stamp(l.head.Watermark); ok && !l.head.Daily.IsZero() {
		line := min(floor(l.head.Daily.Add(-horizon)), floor(w.Add(-lookBack)))
		l.head.Pruned = max(l.head.Pruned, line)
	}
	return l.head != before
}

// maxFailing is how many objects of a lane may wait to be tried again before
// they hold its listing up.
const maxFailing = 32 * laneWindow

// maxLive is how many objects of the last hour may be open in a lane before
// they count against its window.
const maxLive = 8 * laneWindow

// load is how much of the lane's window is used. What is of the last hour does
// not count unless there is very much of it, nor do objects that wait to be
// tried again: nothing behind them is to wait with them.
func (l *lane) load() int {
	return l.older - min(l.failing, maxFailing) + max(0, len(l.open)-l.older-maxLive)
}

// due reports which sweeps of the lane are due.
func (l *lane) due(now time.Time) (hour, day bool) {
	day = now.Sub(later(l.head.Daily, l.daily)) >= daily
	return now.Sub(later(l.head.Hourly, l.hourly)) >= hourly, day
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// forget drops all that is known in memory of the lane's unsettled objects;
// the next listing from its watermark finds them again.
func (l *lane) forget() {
	for _, t := range l.open {
		t.abandoned = true
	}
	for _, t := range l.retrying {
		t.abandoned = true
	}
	for _, t := range l.resyncing {
		t.abandoned = true
	}
	if l.part != nil {
		l.part.leave()
	}
	l.open = make(map[string]*target)
	l.retrying = make(map[string]*target)
	l.resyncing = make(map[string]*target)
	l.order = nil
	l.sweeps = nil
	l.hourly, l.daily = time.Time{}, time.Time{}
	l.older, l.failing = 0, 0
	l.listed = l.head.Watermark
	l.listedOnce = false
	l.seen.passed = time.Time{}
}
