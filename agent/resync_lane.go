package agent

import (
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// resyncLane is a lane's part of a re-sync: how far it is, and what it has
// found that is not settled. All of it is guarded by the stream's mutex.
type resyncLane struct {
	id   progress.Lane // with Resync
	lane *lane
	of   *resync
	// head is how far the part is, as the next commit will write it: everything
	// of the window up to Watermark is settled.
	head    progress.Head
	covered []progress.Covered // of the lane, when the part began

	walk   *relist // that works at it; nil if none does
	listed string  // up to here the walk has listed
	ended  bool    // the window has been listed to its end
	done   bool    // ... and all of it is settled, durably
	denied bool    // it can't be listed, in a run that is to end
	queue  []passage
	open   int // objects found and not durably settled
}

// passage is a position that the part has listed and not passed yet. It passes
// what is settled, in order.
type passage struct {
	position string
	target   *target // nil: nothing of it has to be sent
	passed   int64   // objects up to here that were settled already
}

// windowEnd sorts behind every position.
const windowEnd = behindAllDays

// pass notes that the part has listed up to a position, where an object may
// stand that was settled already.
func (x *resyncLane) pass(position string, objects int64) {
	x.listed = position
	if n := len(x.queue); n > 0 && x.queue[n-1].target == nil {
		x.queue[n-1].position = position
		x.queue[n-1].passed += objects
		return
	}
	x.queue = append(x.queue, passage{position: position, passed: objects})
}

// add notes an object that is to be sent.
func (x *resyncLane) add(t *target) {
	x.listed = t.position
	x.queue = append(x.queue, passage{position: t.position, target: t})
	x.opens(1)
	x.lane.resyncing[t.position] = t
}

// opens counts n more open objects.
func (x *resyncLane) opens(n int) {
	x.open += n
	x.lane.of.source.resyncer.open[x.lane.out].Add(int64(n))
}

// advance moves the head over what is settled, and reports whether it has come
// to the end of the window.
func (x *resyncLane) advance() (end bool) {
	n := 0
	for ; n < len(x.queue); n++ {
		p := &x.queue[n]
		if p.target != nil && !p.target.settled {
			break
		}
		x.of.count.passed.Add(p.passed)
		x.head.Watermark, x.head.Pruned = p.position, p.position
		p.target = nil
	}
	x.queue = x.queue[n:]
	if !x.ended || len(x.queue) > 0 {
		return false
	}
	x.queue = nil
	x.head.Watermark, x.head.Pruned = windowEnd, windowEnd
	return true
}

// leave ends the work at the part, because its output is held. It will be gone
// on with from its head, and what is in flight is found settled then.
func (x *resyncLane) leave() {
	x.opens(-x.open)
	x.walk, x.queue, x.ended = nil, nil, false
	x.lane.part = nil
}

// durable lets go of an object whose settlement is committed.
func (x *resyncLane) durable(t *target) {
	if x.lane.resyncing[t.position] != t {
		return
	}
	delete(x.lane.resyncing, t.position)
	if x.walk != nil {
		x.opens(-1)
		x.walk.room()
	}
}

// drop lets go of an object of a re-sync that was cancelled, unless some of it
// is on its way, or a listing wants it, too.
func (x *resyncLane) drop(t *target) {
	if !x.of.over.Load() || t.adopted || t.settled || t.outstanding > 0 || x.lane.resyncing[t.position] != t {
		return
	}
	delete(x.lane.resyncing, t.position)
	if x.walk != nil {
		x.opens(-1)
	}
	t.abandoned = true
}

// adopt has the lane wait for an object that a re-sync is delivering, if it
// would have wanted it itself; prev is the position listed just before it. So
// the watermark does not pass it, whatever becomes of the re-sync.
func (l *lane) adopt(t *target, prev string, state progress.State, horizon time.Duration) {
	if t.resync == nil || t.adopted || t.settled || l.resyncing[t.position] != t {
		return
	}
	if state.Standing == progress.Settled || state.Standing == progress.Parked || l.tooOld(t.object.Stamp, &t.entry, horizon) {
		return
	}
	t.adopted = true
	l.add(t, prev)
}

// wants reports whether the re-sync has to send an object, by how it stands in
// the lane and in the re-sync's own, and in which of the two it is written what
// of it is acknowledged already.
func (x *resyncLane) wants(f *listed, lane, own progress.State) (bool, progress.State) {
	if own.Standing == progress.Settled {
		return false, own
	}
	if x.of.order.Resend {
		return true, own
	}
	switch {
	case lane.Standing == progress.Parked, lane.Standing == progress.Settled && !lane.Pruned:
		return false, lane
	case lane.Standing == progress.Settled:
		return x.missed(f), own
	case len(own.Acked) > 0:
		return true, own
	}
	return true, lane
}

// missed reports whether an object below the lane's prune line, where nothing
// is remembered of single objects, has never been settled: by when it appeared.
func (x *resyncLane) missed(f *listed) bool {
	at, _ := cloudtrail.Instant(f.position)
	appeared := f.entry.LastModified
	if asOf := progress.CoveredAt(x.covered, at); appeared.Before(asOf) {
		return false
	}
	l := x.lane
	horizon := l.of.source.cfg.LateHorizon
	if f.stamp.Before(l.begin.Start) {
		return l.tooOld(f.stamp, &f.entry, horizon)
	}
	// It was there when the lane began, or appeared inside the late horizon: a
	// listing has found it. What came later no listing has looked for.
	return !appeared.Before(l.begin.FirstSeen) && appeared.Sub(f.stamp) > horizon
}

// cover returns the windows that are covered when the part has gone over its
// own up to an instant.
func (x *resyncLane) cover(to time.Time) []progress.Covered {
	asOf := x.head.Hourly
	if asOf.IsZero() {
		return x.covered
	}
	all := progress.Cover(x.covered, progress.Covered{From: x.of.order.From, To: to, AsOf: asOf})
	// What listings see to by themselves need not be remembered: see missed.
	begin, horizon := x.lane.begin, x.lane.of.source.cfg.LateHorizon
	var keep []progress.Covered
	for _, w := range all {
		if w.From.Before(begin.Start) || w.AsOf.After(w.From.Add(horizon)) {
			keep = append(keep, w)
		}
	}
	return keep
}

// coveredSoFar returns up to when the part has gone over its window: whole days.
func (x *resyncLane) coveredSoFar() time.Time {
	if x.head.Watermark == windowEnd {
		return x.of.order.To
	}
	day, ok := folderDay(x.head.Watermark)
	if !ok || day.Before(x.of.order.From) {
		return x.of.order.From
	}
	return minTime(day, x.of.order.To)
}

// share returns how much of the window the part has gone over, 0 to 1.
func (x *resyncLane) share() float64 {
	return shareOf(&x.of.order, x.head.Watermark)
}

func shareOf(order *progress.Resync, watermark string) float64 {
	if watermark == windowEnd {
		return 1
	}
	at, ok := cloudtrail.Instant(watermark)
	if !ok {
		if at, ok = folderDay(watermark); !ok {
			return 0
		}
		if len(watermark) == len(dayEnd(at)) {
			at = at.AddDate(0, 0, 1) // the whole of it
		}
	}
	done := float64(at.Sub(order.From)) / float64(order.To.Sub(order.From))
	return min(max(done, 0), 1)
}

// folderDay returns the day whose folder a position stands in.
func folderDay(position string) (time.Time, bool) {
	if len(position) < len(dayForm) {
		return time.Time{}, false
	}
	t, err := time.Parse(dayForm, position[:len(dayForm)])
	return t, err == nil
}

const dayForm = "2006/01/02"

func dayFolder(day time.Time) string { return day.Format(dayForm) + "/" }

// dayEnd returns what sorts behind all of a day's folder and before the next.
func dayEnd(day time.Time) string { return day.Format(dayForm) + "0" } // "0" follows "/"

// partlyResynced writes down what of an object of a re-sync is acknowledged so
// far. The stream's mutex is held.
func (r *round) partlyResynced(t *target) {
	over := t.resync.of.over.Load()
	if !over {
		r.changes.Partial = append(r.changes.Partial, progress.ObjectPartial{
			Lane: t.resync.id, Position: t.position, Acked: t.acked.Clone(), ETag: t.etag,
		})
	}
	if t.adopted || over {
		r.changes.Partial = append(r.changes.Partial, progress.ObjectPartial{
			Lane: t.lane.id, Position: t.position, Acked: t.acked.Clone(), ETag: t.etag,
		})
	}
}

// resynced notes that an object of a re-sync is done with. The stream's mutex
// is held.
func (r *round) resynced(t *target) {
	x := t.resync
	if x.of.over.Load() {
		return // its lanes are forgotten
	}
	x.of.count.objects.Add(1)
	x.of.count.records.Add(int64(t.acked.Len()))
	x.of.count.bytes.Add(t.entry.Size)
	r.changes.Settled = append(r.changes.Settled, progress.ObjectSettled{Lane: x.id, Position: t.position})
	if !t.abandoned {
		r.resyncs[x] = true
	}
}

// concludeResyncs draws from each part that was met how far it is.
func (r *round) concludeResyncs() {
	orders := make(map[*resync]bool)
	for x := range r.resyncs {
		st := x.lane.of
		st.mu.Lock()
		if !x.of.over.Load() {
			if x.walk != nil && x.advance() {
				// The part is complete: that its window is covered becomes
				// durable with the last of it that was settled, and no sooner.
				r.changes.Covered = append(r.changes.Covered, progress.LaneCovered{Lane: x.lane.id, Windows: x.cover(x.of.order.To)})
			}
			r.changes.Heads = append(r.changes.Heads, progress.LaneHead{Lane: x.id, Head: x.head})
			orders[x.of] = true
		}
		st.mu.Unlock()
	}
	for o := range orders {
		r.changes.Resyncs = append(r.changes.Resyncs, o.snapshot())
	}
}

// afterResyncs lets go of parts that are complete, durably now.
func (r *round) afterResyncs() {
	for x := range r.resyncs {
		st := x.lane.of
		st.mu.Lock()
		if x.head.Watermark == windowEnd && !x.done {
			x.done = true
			if x.walk != nil {
				x.leave()
			}
			st.source.resyncer.nudge()
		}
		st.mu.Unlock()
	}
}

// inWindow reports whether an object of a listing belongs to a window of
// stamps. Where the day of its folder is another than that of its name, the
// folder decides.
func inWindow(order *progress.Resync, position string) bool {
	at, ok := cloudtrail.Instant(position)
	return ok && !at.Before(order.From) && at.Before(order.To)
}

// entriesOf returns the log files of a page that belong to a window, and the
// position up to which the page lists.
func (st *stream) entriesOf(page listing.Page, order *progress.Resync, after string) (files []listed, end string) {
	end = after
	for _, e := range page.Entries {
		if len(e.Key) <= len(st.prefix) || e.Key[:len(st.prefix)] != st.prefix || e.Key[len(st.prefix):] <= end {
			continue // a server that repeats itself
		}
		end = e.Key[len(st.prefix):]
		stamp, class := cloudtrail.ParsePosition(st.id, end)
		if class == cloudtrail.Log && inWindow(order, end) {
			files = append(files, listed{e, end, stamp})
		}
	}
	return files, end
}
