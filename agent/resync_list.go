package agent

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
)

const (
	// resyncShare is how much of what may wait in a source's queue, its share of
	// it, may be of re-syncs.
	resyncShare = 4
	// resyncWindow is how many objects of a part may be open before its walk
	// waits, and how few until it goes on.
	resyncWindow = laneWindow / 2
	resyncRoom   = laneWindow / 8
	// resyncPage is how many objects of a page are asked for: pages of several
	// streams come at once, and there must be room for them.
	resyncPage = listing.MaxEntries / 2
	// resyncTouch is after how many pages it is written down how far a walk is,
	// whether anything was sent or not.
	resyncTouch = 16
)

// relist goes over one stream for the parts of a re-sync that are in step, one
// page at a time.
type relist struct {
	of      *resync
	stream  *stream
	outputs string // those of its lanes, when it began

	lanes []*resyncLane // guarded by the stream's mutex, as all below
	full  bool          // waits for room
	ended bool
	day   time.Time
	after string // listed up to here

	failures int
	quiet    int // pages since it was written down how far it is
}

// start finds the day to begin with.
func (w *relist) start() {
	w.day = w.of.order.From.Truncate(daily)
	if at, ok := folderDay(w.after); ok && at.After(w.day) {
		w.day = at
	}
	if w.after == dayEnd(w.day) {
		w.day = w.day.AddDate(0, 0, 1)
	}
}

// room wakes the walk if it waits and can go on; the stream's mutex is held.
func (w *relist) room() {
	if w.full && slices.ContainsFunc(w.lanes, func(x *resyncLane) bool { return x.walk == w && x.open <= resyncRoom }) {
		w.full = false
		w.stream.source.resyncer.push(w)
	}
}

// step makes one LIST and returns when the walk is to go on; negative: when it
// is woken, or never.
func (w *relist) step(ctx context.Context) time.Duration {
	st, s := w.stream, w.stream.source
	st.mu.Lock()
	w.lanes = slices.DeleteFunc(slices.Clone(w.lanes), func(x *resyncLane) bool { return x.walk != w })
	if len(w.lanes) == 0 || w.of.over.Load() || w.ended {
		st.mu.Unlock()
		s.resyncer.nudge()
		return -1
	}
	if wait := w.split(); wait != 0 {
		st.mu.Unlock()
		return wait
	}
	if !w.day.Before(w.of.order.To) {
		w.end()
		st.mu.Unlock()
		return -1
	}
	folder, after := dayFolder(w.day), w.after
	st.mu.Unlock()

	r := listing.Request{Prefix: st.prefix + folder, Limit: resyncPage}
	if strings.HasPrefix(after, folder) {
		r.StartAfter = st.prefix + after
	} else {
		after = ""
	}
	page, err := s.resyncer.list(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return -1
		}
		return w.failed(err)
	}
	end, err := w.take(page, after)
	if err != nil {
		s.agent.fail(checkpointError(err))
		return -1
	}
	if !page.Last() && end == after {
		return w.failed(&fault.Error{
			Kind: fault.Misconfigured, Op: "listing " + r.Prefix, Err: errNoProgress,
			Hint: "the server at endpoint is not S3's equal: it must honour start-after",
		})
	}
	if w.failures > 0 {
		s.trouble.over(w.what())
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	w.failures = 0
	w.after = end
	if page.Last() {
		w.after = dayEnd(w.day)
		w.day = w.day.AddDate(0, 0, 1)
		for _, x := range w.lanes {
			if x.walk == w && x.listed < w.after {
				x.pass(w.after, 0)
			}
		}
	}
	if w.quiet++; w.quiet >= resyncTouch {
		w.touch()
	}
	return 0
}

// list makes one LIST for a re-sync.
func (r *resyncer) list(ctx context.Context, q listing.Request) (listing.Page, error) {
	s := r.source
	if s.schedule.limit != nil {
		// One of ours waits in the line at a time: the others' turn comes first.
		r.capped.Lock()
		defer r.capped.Unlock()
	}
	if err := s.schedule.wait(ctx); err != nil {
		return listing.Page{}, err
	}
	return s.list(ctx, q)
}

// touch has it written down how far the parts are; the stream's mutex is held.
func (w *relist) touch() {
	w.quiet = 0
	for _, x := range w.lanes {
		if x.walk == w {
			w.stream.source.agent.settler.pass(x)
		}
	}
}

// end notes that the window has been listed to its end; the stream's mutex is
// held.
func (w *relist) end() {
	w.ended = true
	for _, x := range w.lanes {
		x.ended = true
		if x.head.Hourly.IsZero() {
			x.head.Hourly = w.stream.source.now()
		}
	}
	w.touch()
}

// split says whether the walk has to wait, because a part has no room or its
// output has more open than it should: for how long, or, negative, until it is
// woken. Where another part has hardly anything left to do, those are sent off
// on their own instead. The stream's mutex is held.
func (w *relist) split() time.Duration {
	r := w.stream.source.resyncer
	w.full = false
	var full []*resyncLane
	hungry, stocked := false, false
	for _, x := range w.lanes {
		switch {
		case r.stocked(x.lane.out):
			stocked = true
			full = append(full, x)
		case x.open > resyncWindow:
			full = append(full, x)
		case x.open <= resyncRoom:
			hungry = true
		}
	}
	switch {
	case len(full) == 0:
		return 0
	case !hungry && stocked:
		return jitter(crowdedWait / 4) // nobody says when less is open
	case !hungry:
		w.full = true
		return -1
	}
	n := *w
	n.lanes, n.full, n.outputs = full, !stocked, outputsOf(full)
	for _, x := range full {
		x.walk = &n
	}
	w.lanes = slices.DeleteFunc(w.lanes, func(x *resyncLane) bool { return x.walk != w })
	w.outputs = outputsOf(w.lanes)
	if stocked {
		r.push(&n)
	} // else it is woken when there is room
	return 0
}

// failed notes that a LIST failed, and says when to try again.
func (w *relist) failed(err error) time.Duration {
	s := w.stream.source
	w.failures++
	s.trouble.met(w.what(), err, "")
	if !s.hopeless(w.failures, err) {
		return s.backoff(w.failures, err)
	}
	if fault.KindOf(err) != fault.Denied {
		_ = s.giveUp(err)
		return s.backoff(w.failures, err)
	}
	w.stream.mu.Lock()
	for _, x := range w.lanes {
		if x.walk == w {
			x.denied = true
			x.leave()
		}
	}
	w.stream.mu.Unlock()
	s.lacks(w.what(), err)
	s.resyncer.nudge()
	return -1
}

// what names the walk, as trouble.
func (w *relist) what() string {
	return "listing for re-sync " + w.of.order.ID.String() + " at " + w.stream.id.String()
}

// take works a page into the parts, and returns the position up to which it
// lists.
func (w *relist) take(page listing.Page, after string) (end string, err error) {
	st, s := w.stream, w.stream.source
	st.taking.Lock()
	defer st.taking.Unlock()
	files, end := st.entriesOf(page, &w.of.order, after)
	positions := make([]string, len(files))
	for n := range files {
		positions[n] = files[n].position
	}
	st.mu.Lock()
	parts := slices.Clone(w.lanes)
	known := make([][]*target, len(parts))
	for i, x := range parts {
		known[i] = make([]*target, len(files))
		for n, position := range positions {
			known[i][n] = x.lane.busy(position)
		}
	}
	st.mu.Unlock()
	lane, own := make([][]progress.State, len(parts)), make([][]progress.State, len(parts))
	for i, x := range parts {
		if lane[i], err = s.agent.cfg.Checkpoint.Lookup(x.lane.id, positions, nil); err != nil {
			return end, err
		}
		if own[i], err = s.agent.cfg.Checkpoint.Lookup(x.id, positions, nil); err != nil {
			return end, err
		}
	}

	jobs := make([]*job, len(files))
	now := s.now()
	at := plausible(page.At, now)
	st.mu.Lock()
	for i, x := range parts {
		if x.walk != w || w.of.over.Load() {
			continue // its output was held meanwhile
		}
		if x.head.Hourly.IsZero() {
			x.head.Hourly = at
		}
		for n := range files {
			f := &files[n]
			if f.position <= x.listed {
				continue // another part of the walk is behind this one
			}
			send, state := x.wants(f, lane[i][n], own[i][n])
			if z := x.lane.resyncing[f.position]; send && z != nil && z.resync != x && z.resync.of.over.Load() {
				z.resync = x // of one that was cancelled: it might not end it
				x.add(z)
				continue
			}
			was := known[i][n]
			if !send || was != nil && !was.abandoned || x.lane.busy(f.position) != nil {
				// Settled, or on its way: whoever found it sees to it.
				passed := int64(1)
				if own[i][n].Standing == progress.Settled {
					passed = 0 // it counts among those sent
				}
				x.pass(f.position, passed)
				continue
			}
			if jobs[n] == nil {
				jobs[n] = &job{found: st.found(*f), class: redo}
				if now.Sub(f.stamp) <= hourly {
					jobs[n].class = live // nobody else is to wait for it longer than without us
				}
			}
			t := &target{found: jobs[n].found, lane: x.lane, class: jobs[n].class, resync: x, acked: state.Acked, etag: state.ETag, total: -1}
			jobs[n].targets = append(jobs[n].targets, t)
			x.add(t)
		}
	}
	st.mu.Unlock()
	for _, j := range jobs {
		if j != nil {
			s.queue.put(j)
		}
	}
	return end, nil
}

// busy returns an object of the lane that is on its way, or nil. The stream's
// mutex is held.
func (l *lane) busy(position string) *target {
	return cmp.Or(l.open[position], l.retryingWhole(position), l.resyncing[position])
}

// retryingWhole returns a parked object that is being tried again as a whole,
// or nil. Single records that are say nothing of the others, nor does an attempt
// that has not begun. The stream's mutex is held.
func (l *lane) retryingWhole(position string) *target {
	if t := l.retrying[position]; t != nil && t.retried(progress.WholeObject) >= 0 {
		return t
	}
	return nil
}

// pass has it written down with the next commit how far a part is.
func (s *settler) pass(x *resyncLane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed[x] = true
	s.changed.Signal()
}
