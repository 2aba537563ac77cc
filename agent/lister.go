package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/progress"
)

const (
	hourly = time.Hour
	daily  = 24 * time.Hour

	// laneWindow is how many objects of a lane may be found and not settled
	// before its listing waits; it goes on when half of them are.
	laneWindow = listing.MaxEntries
)

// lister lists one stream for the lanes that are in step, one page at a time.
// A pass is a listing from some position to the end: the tail begins at the
// look-back, a sweep further back, and that is all that differs. The
// scheduler never runs a lister twice at the same time.
//
// While a pass of many pages is far behind the present, passes over the last
// hour come in between, so that a backlog does not cost freshness.
type lister struct {
	stream *stream
	lanes  []*lane // guarded by the stream's mutex

	pass  *pass // nil between passes
	fresh *pass // over the last hour, in between; nil if none is under way
	full  bool  // waits for room; guarded by the stream's mutex
	gone  bool  // no lane is left; guarded by the stream's mutex

	lastNew   time.Time // when objects last came, monotonic
	lastFresh time.Time // when a pass over the last hour last began, monotonic
	turn      bool      // after which it is the pass's turn, however long it took under a cap
	failures  int       // LISTs that failed in a row
	troubled  bool      // ... and that was said
	lastFar   time.Time // when a tail last went over the whole look-back
	busy      bool      // ... which took more than one page
	standing  standing  // where there is no room; the queue's
}

// pass is a listing under way.
type pass struct {
	kind   passKind
	from   string // where it began
	after  string // continue after this position
	first  bool   // no page has come yet
	pages  int
	found  int // objects that were new
	far    bool
	began  time.Time // by S3's clock
	sweeps map[*lane]*sweep
}

// passKind is what a pass is for.
type passKind int

const (
	tailPass passKind = iota
	hourlyPass
	dailyPass
	freshPass // over the last hour, ahead of the pass that is under way
)

// reach says where a pass of a lane begins: a time of S3's clock before which
// it need not look. A tail begins its look-back before what has been listed.
type reach func(kind passKind, listed time.Time, head progress.Head, c *SourceConfig, now time.Time) time.Time

// reachBack is the reach that loses nothing: a sweep reaches back from the last
// one that was completed, however long ago that was, since what has appeared
// since then can be as old as the horizon was then.
func reachBack(kind passKind, listed time.Time, head progress.Head, c *SourceConfig, _ time.Time) time.Time {
	switch kind {
	case dailyPass:
		return head.Daily.Add(-c.LateHorizon)
	case hourlyPass:
		return head.Hourly.Add(-daily)
	default:
		return listed.Add(-c.LookBack)
	}
}

func newLister(st *stream, lanes []*lane) *lister {
	return &lister{stream: st, lanes: lanes}
}

// remove takes a lane out and reports whether none is left. The stream's mutex
// is held.
func (l *lister) remove(x *lane) (empty bool) {
	i := slices.Index(l.lanes, x)
	if i < 0 {
		return false
	}
	l.lanes = slices.Delete(slices.Clone(l.lanes), i, i+1)
	return len(l.lanes) == 0
}

func (l *lister) stop() { l.gone = true }

// hasRoom reports whether a lane could go on: one that can does not wait for
// those that can't.
func (l *lister) hasRoom() bool {
	return slices.ContainsFunc(l.lanes, func(x *lane) bool { return x.load() <= laneWindow/2 })
}

// step makes one LIST and returns when the lister is due again; negative:
// it waits to be woken, or is done with.
func (l *lister) step(ctx context.Context) time.Duration {
	st, s := l.stream, l.stream.source
	st.mu.Lock()
	if l.gone {
		st.mu.Unlock()
		s.queue.dismiss(l)
		return -1
	}
	p, wait := l.choose()
	lanes := l.lanes
	coming := l.expects(p)
	st.mu.Unlock()
	if p == nil {
		s.queue.dismiss(l)
		return wait
	}

	// Under a cap its turn may be long in coming: no room is kept meanwhile, nor
	// promised, which nobody else could use.
	behind, capped := l.behindIn(p), s.schedule.limit != nil
	if capped && !s.queue.fits(coming, behind) {
		return jitter(crowdedWait)
	}
	if err := s.schedule.wait(ctx); err != nil {
		return -1
	}
	if !s.queue.admit(l, coming, behind, !capped) {
		s.schedule.unused()
		return jitter(crowdedWait)
	}
	defer s.queue.admitted(coming)
	st.lists.add(1)
	page, err := s.list(ctx, listing.Request{Prefix: st.prefix, StartAfter: st.prefix + p.after, Limit: listing.MaxEntries})
	if err != nil {
		if ctx.Err() != nil {
			return -1
		}
		l.failures++
		s.listFailed(l, err)
		return s.backoff(l.failures, err)
	}
	after := p.after
	if err := l.take(page, p, lanes); err != nil {
		s.agent.fail(checkpointError(err))
		return -1
	}
	if !page.Last() && p.after == after {
		l.failures++
		err := &fault.Error{
			Kind: fault.Misconfigured, Op: "listing " + st.prefix, Err: errNoProgress,
			Hint: "the server at endpoint is not S3's equal: it must honour start-after",
		}
		s.trouble.met(l.what(), err, "")
		l.troubled = true
		return s.backoff(l.failures, err)
	}
	l.failures = 0
	s.listWorks(l)
	switch {
	case !page.Last() && p.after < behindAllDays:
		return 0
	case p == l.fresh:
		if p.found > 0 {
			l.lastNew = time.Now()
		}
		l.fresh = nil
		return 0
	}
	return l.end(p)
}

var errNoProgress = errors.New("a page brought nothing beyond the one before, and says that more is to come")

// behindAllDays sorts behind the folder of every day: no log file is there.
const behindAllDays = ":" // follows "9"

// choose returns the pass to go on with, or how long to wait if none can. The
// stream's mutex is held.
func (l *lister) choose() (*pass, time.Duration) {
	if l.pass == nil {
		l.begin()
	}
	// What the last hour brought must not wait for room that a backlog needs.
	stocked := l.stocked()
	behind := l.behindIn(l.pass) && (!l.pass.first || stocked || l.stream.source.queue.crowded())
	refresh := l.stream.source.cfg.Refresh
	since := time.Since(l.lastFresh)
	if behind && l.fresh == nil && !l.turn && !l.flooded() && (l.lastFresh.IsZero() || since >= refresh) {
		l.lastFresh, since = time.Now(), 0
		l.turn = true
		from := l.stream.floor(l.stream.source.now().Add(-hourly))
		l.fresh = &pass{kind: freshPass, from: from, after: from, first: true}
	}
	if l.fresh != nil && !l.flooded() {
		return l.fresh, 0
	}
	l.fresh = nil // the pass that is under way comes to the rest of it
	l.turn = false
	if l.part(); !l.full {
		return l.pass, 0
	}
	switch {
	case stocked, behind && since >= refresh:
		return nil, jitter(crowdedWait) // nobody says when there is less of it
	case behind:
		return nil, refresh - since
	}
	return nil, -1
}

// stocked reports whether a lane's output lags so much that the lane should not
// go on. The stream's mutex is held.
func (l *lister) stocked() bool {
	return slices.ContainsFunc(l.lanes, func(x *lane) bool { return l.stream.source.queue.stocked(x.out, false) })
}

// expects returns how many objects the pass's next page may bring: of a stream
// that is kept up with it is hardly any. The stream's mutex is held.
func (l *lister) expects(p *pass) int64 {
	switch {
	case p == nil:
	case p.pages > 0:
		return listing.MaxEntries
	case slices.ContainsFunc(l.lanes, func(x *lane) bool { return !x.listedOnce }):
		return listing.MaxEntries / 4
	}
	return 0
}

// flooded reports whether more of the last hour waits than should be listed
// ahead. The stream's mutex is held.
func (l *lister) flooded() bool {
	return slices.ContainsFunc(l.lanes, func(x *lane) bool {
		return len(x.open)-x.older > maxLive || l.stream.source.queue.stocked(x.out, true)
	})
}

// behindIn reports whether the pass has not come to the last hour yet.
func (l *lister) behindIn(p *pass) bool {
	at, ok := cloudtrail.Instant(p.after)
	return ok && l.stream.source.now().Sub(at) > hourly
}

// part sends lanes that can't go on off on their own, because their window is
// full or their output lags, so that the others need not wait for them; if all
// are such, the lister waits. The stream's mutex is held.
func (l *lister) part() {
	l.full = false
	s := l.stream.source
	var full []*lane
	for _, x := range l.lanes {
		if x.load() >= laneWindow || s.queue.stocked(x.out, false) {
			full = append(full, x)
		}
	}
	switch {
	case len(full) == 0:
	case len(full) == len(l.lanes):
		l.full = true
	default:
		for _, x := range full {
			l.remove(x)
			n := newLister(l.stream, []*lane{x})
			n.full, n.lastNew = true, l.lastNew
			l.stream.listers = append(l.stream.listers, n)
			if x.load() < laneWindow {
				s.schedule.wake(n)
			} // else it is woken when there is room
			if l.pass != nil && l.pass.sweeps[x] != nil {
				// Its sweep has not gone to the end and never will: it is due
				// still, and begins again.
				x.dropSweep(l.pass.sweeps[x])
				delete(l.pass.sweeps, x)
			}
		}
	}
}

// begin begins a pass: the sweep that is due, else the tail. The stream's
// mutex is held.
func (l *lister) begin() {
	s := l.stream.source
	now, mono := s.now(), time.Now()
	c := s.cfg // a copy: the look-back may be cut short below
	p := &pass{kind: tailPass, first: true, began: now, sweeps: make(map[*lane]*sweep)}
	for _, x := range l.lanes {
		switch hour, day := x.due(now); {
		case day, s.agent.cfg.Sweep && !x.listedOnce:
			p.kind = dailyPass
		case hour:
			p.kind = max(p.kind, hourlyPass)
		}
	}
	if l.busy && p.kind == tailPass && mono.Sub(l.lastFar) < c.LookBack/plan.NearAt {
		// A look-back of many pages is not paid for at every poll: near every
		// time, far seldom.
		c.LookBack /= plan.NearDepth
	} else {
		p.far = true
		l.lastFar = mono
	}
	for i, x := range l.lanes {
		// A name may run ahead of the time, by far in a bucket that holds a
		// stray one: what comes now comes before it.
		listed, ok := cloudtrail.Instant(x.listed)
		if !ok || listed.After(now) {
			listed = now
		}
		from := x.listed
		for kind := tailPass; kind <= p.kind; kind++ {
			from = min(from, l.stream.floor(s.agent.cfg.reach(kind, listed, x.head, &c, now)))
		}
		from = max(from, x.head.Pruned)
		if i == 0 || from < p.from {
			p.from = from
		}
	}
	p.after = p.from
	l.pass = p
}

// end ends a pass and says when the next one is due.
func (l *lister) end(p *pass) time.Duration {
	st, s := l.stream, l.stream.source
	st.mu.Lock()
	defer st.mu.Unlock()
	l.pass = nil
	if p.far && p.kind == tailPass {
		l.busy = p.pages > 1
	}
	for _, x := range l.lanes {
		x.listedOnce = true
		x.listedToEnd(p.began)
		if sw := p.sweeps[x]; sw != nil {
			sw.listed = true
			x.hourly = later(x.hourly, sw.at)
			if sw.daily {
				x.daily = later(x.daily, sw.at)
			}
		}
		if st.advance(x) {
			s.agent.settler.touch(x)
		}
	}
	s.agent.progressed()
	if l.gone { // its outputs were held meanwhile
		return -1
	}
	if l.rejoin() || s.agent.cfg.Once {
		return -1
	}
	now := time.Now()
	if p.found > 0 || l.lastNew.IsZero() && s.recent(l.lanes) {
		l.lastNew = now
	}
	return s.cadence(now.Sub(l.lastNew), l.lastNew.IsZero())
}

// rejoin puts lanes that have listed to the end into the stream's first
// lister, where they are in step again, and reports whether that has taken them
// over. The stream's mutex is held.
func (l *lister) rejoin() bool {
	first := l.stream.listers[0]
	if l == first || first.pass != nil || first.full {
		return false
	}
	first.lanes = append(slices.Clone(first.lanes), l.lanes...)
	l.gone = true
	i := slices.Index(l.stream.listers, l)
	l.stream.listers = slices.Delete(l.stream.listers, i, i+1)
	return true
}

// dropSweep forgets a sweep that will not be completed.
func (l *lane) dropSweep(sw *sweep) {
	l.sweeps = slices.DeleteFunc(l.sweeps, func(x *sweep) bool { return x == sw })
	for _, t := range l.open {
		t.sweeps = slices.DeleteFunc(t.sweeps, func(x *sweep) bool { return x == sw })
	}
}
