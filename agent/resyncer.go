package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// resyncWalks is how many streams re-syncs go over at once, for each set of
// outputs that are in step.
const resyncWalks = 4

// resyncer works at re-syncs in one source: it walks over their windows, day
// folder by day folder, and queues what is to be sent behind all that is
// fresher. It goes on where the checkpoint has it.
type resyncer struct {
	source *source
	signal chan struct{} // something may be there to do
	capped sync.Mutex    // with a cap on LISTs: one at a time waits for it
	// open is how many objects were found and are not durably settled, by
	// output; the map never changes.
	open map[*delivery]*atomic.Int64

	mu       sync.Mutex // guards what follows; taken last
	changed  *sync.Cond
	parts    map[progress.Lane]*resyncLane // by their own lane
	finished map[progress.ResyncID]bool    // nothing of these is left here
	ready    []*relist
	sorted   []*stream // of the source, by name; never changed once made
	closed   bool
}

func newResyncer(s *source) *resyncer {
	r := &resyncer{
		source: s, signal: make(chan struct{}, 1),
		open:  make(map[*delivery]*atomic.Int64),
		parts: make(map[progress.Lane]*resyncLane), finished: make(map[progress.ResyncID]bool),
	}
	for _, d := range s.outputs {
		r.open[d] = new(atomic.Int64)
	}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// stocked reports whether so much is open for an output that nothing more is to
// be found for it: one that lags takes no room from the others.
func (r *resyncer) stocked(out *delivery) bool {
	most := r.source.queue.most / resyncShare / int64(len(r.open))
	return r.open[out].Load() > max(most, 2*resyncPage)
}

// nudge has the resyncer look for something to do.
func (r *resyncer) nudge() {
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// run works until ctx ends.
func (r *resyncer) run(ctx context.Context) {
	if r.source.agent.resyncs.book == nil {
		return
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	for range resyncWalks {
		workers.Go(func() {
			for w := r.next(); w != nil; w = r.next() {
				r.again(ctx, w, w.step(ctx))
			}
		})
	}
	defer r.close()
	walked := r.source.walked
	for {
		if err := r.feed(ctx); err != nil {
			if ctx.Err() == nil {
				r.source.agent.fail(checkpointError(err))
			}
			return
		}
		select {
		case <-r.signal:
		case <-walked:
			walked = nil
		case <-ctx.Done():
			return
		}
	}
}

// next waits for a walk that can go on; nil when the resyncer is closed.
func (r *resyncer) next() *relist {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.ready) == 0 && !r.closed {
		r.changed.Wait()
	}
	if r.closed {
		return nil
	}
	w := r.ready[0]
	r.ready[0] = nil
	r.ready = r.ready[1:]
	return w
}

// again has the walk go on in d; if that is negative, when it is woken.
func (r *resyncer) again(ctx context.Context, w *relist, d time.Duration) {
	switch {
	case d == 0:
		r.push(w)
	case d > 0:
		r.source.timers.after(d, func() {
			if ctx.Err() == nil {
				r.push(w)
			}
		})
	}
}

func (r *resyncer) push(w *relist) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.ready = append(r.ready, w)
		r.changed.Signal()
	}
}

// close ends every next.
func (r *resyncer) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.ready = nil
	r.changed.Broadcast()
}

// lanes returns the lanes of the source that a re-sync is for, those of a
// stream together, in the order of the streams' names.
func (r *resyncer) lanes(o *progress.Resync) []*lane {
	var all []*lane
	for _, st := range r.inOrder() {
		for _, l := range st.lanes {
			if o.Wants(&l.id) {
				all = append(all, l)
			}
		}
	}
	return all
}

// inOrder returns the streams of the source in the order of their names. None
// ever goes, so that they need to be sorted only when there are more.
func (r *resyncer) inOrder() []*stream {
	s := r.source
	s.mu.Lock()
	n := len(s.streams)
	s.mu.Unlock()
	r.mu.Lock()
	sorted := r.sorted
	r.mu.Unlock()
	if len(sorted) == n {
		return sorted
	}
	sorted = s.all()
	slices.SortFunc(sorted, func(a, b *stream) int { return strings.Compare(a.id.String(), b.id.String()) })
	r.mu.Lock()
	r.sorted = sorted
	r.mu.Unlock()
	return sorted
}

// part returns a lane's part of a re-sync.
func (r *resyncer) part(x *resync, l *lane) *resyncLane {
	id := l.id
	id.Resync = x.order.ID
	r.mu.Lock()
	p := r.parts[id]
	r.mu.Unlock()
	if p != nil {
		return p
	}
	head := x.heads[id]
	p = &resyncLane{id: id, lane: l, of: x, head: head, done: head.Watermark == windowEnd}
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.parts[id]; was != nil {
		return was
	}
	r.parts[id] = p
	return p
}

// how says how far a lane's part of a re-sync is.
func (r *resyncer) how(x *resync, l *lane) (share float64, day time.Time, done bool) {
	id := l.id
	id.Resync = x.order.ID
	r.mu.Lock()
	p := r.parts[id]
	r.mu.Unlock()
	if p == nil {
		w := x.heads[id].Watermark
		return shareOf(&x.order, w), time.Time{}, w == windowEnd
	}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if p.walk != nil {
		day = p.walk.day
		if d, ok := folderDay(p.head.Watermark); ok && d.Before(day) {
			day = d
		}
	}
	return p.share(), day, p.done
}

// abandon ends the work at a re-sync that is over, and returns what it has
// covered.
func (r *resyncer) abandon(x *resync) (covered []progress.LaneCovered) {
	heads := make(map[progress.Lane]progress.Head)
	for id, h := range x.heads {
		if id.Source == r.source.id {
			heads[id] = h
		}
	}
	r.mu.Lock()
	var parts []*resyncLane
	for id, p := range r.parts {
		if id.Resync == x.order.ID {
			parts = append(parts, p)
			delete(r.parts, id)
		}
	}
	r.mu.Unlock()
	for _, p := range parts {
		st := p.lane.of
		st.mu.Lock()
		heads[p.id] = p.head
		if p.walk != nil {
			// What is on its way ends as it would have; the queue lets go of
			// the rest.
			p.leave()
		}
		st.mu.Unlock()
	}
	for id, h := range heads {
		lane := id
		lane.Resync = 0
		windows, err := r.source.agent.resyncs.book.Covered(lane)
		if err != nil || h.Hourly.IsZero() {
			continue // it will be gone over again, then
		}
		part := resyncLane{of: x, head: h}
		windows = progress.Cover(windows, progress.Covered{From: x.order.From, To: part.coveredSoFar(), AsOf: h.Hourly})
		covered = append(covered, progress.LaneCovered{Lane: lane, Windows: windows})
	}
	return covered
}

// left reports whether something of a re-sync can be done in the source, and
// for which outputs, held by now, something is owed.
func (r *resyncer) left() (busy bool, owed []*delivery) {
	for _, x := range r.source.agent.resyncs.open(r.source.id) {
		r.mu.Lock()
		finished := r.finished[x.order.ID]
		r.mu.Unlock()
		if finished {
			busy = busy || r.source.agent.nothingLeftOf(x) // it is about to end
			continue
		}
		waits := false // for what won't come
		for _, l := range r.lanes(&x.order) {
			p := r.part(x, l)
			l.of.mu.Lock()
			done, denied := p.done, p.denied
			l.of.mu.Unlock()
			switch {
			case done:
			case denied:
				waits = true
			case l.out.isHeld(), l.out.inDoubt():
				owed = append(owed, l.out)
				waits = true
			default:
				busy = true
			}
		}
		busy = busy || !waits // its end is still to be written down
	}
	return busy, owed
}

// feed begins walks where there is something to do, and ends re-syncs of which
// nothing is left.
func (r *resyncer) feed(ctx context.Context) error {
	s := r.source
	open := s.agent.resyncs.open(s.id)
	r.forget(open)
	taken := make(map[*lane]bool) // an earlier re-sync has still to go over these
	active := make(map[string]map[*relist]bool)
	for _, x := range open {
		left := false
		var group []*resyncLane
		begin := func() {
			if len(group) > 0 {
				r.begin(x, group, active)
			}
			group = nil
		}
		for _, l := range r.lanes(&x.order) {
			if len(group) > 0 && group[0].lane.of != l.of {
				begin()
			}
			p := r.part(x, l)
			held := l.out.isHeld()
			l.of.mu.Lock()
			done, w, denied, outputs := p.done, p.walk, p.denied, ""
			if w != nil {
				outputs = w.outputs // a walk that is parted changes them
			}
			l.of.mu.Unlock()
			if done {
				continue
			}
			left = true
			if taken[l] {
				continue
			}
			taken[l] = true
			switch {
			case w != nil:
				count(active, outputs, w)
			case !held && !denied && !r.stocked(l.out): // whatever ends for it has us look again
				// Now, when what came before it in the lane is over.
				covered, err := s.agent.resyncs.book.Covered(l.id)
				if err != nil {
					return err
				}
				l.of.mu.Lock()
				p.covered = covered
				l.of.mu.Unlock()
				group = append(group, p)
			}
		}
		begin()
		if !left {
			if err := r.finish(ctx, x); err != nil {
				return err
			}
		}
	}
	return nil
}

func count(active map[string]map[*relist]bool, outputs string, w *relist) {
	if active[outputs] == nil {
		active[outputs] = make(map[*relist]bool)
	}
	active[outputs][w] = true
}

// begin begins to walk over a stream for lanes, unless enough walks are under
// way.
func (r *resyncer) begin(x *resync, parts []*resyncLane, active map[string]map[*relist]bool) {
	w := &relist{of: x, stream: parts[0].lane.of, outputs: outputsOf(parts)}
	if len(active[w.outputs]) >= resyncWalks || x.over.Load() {
		return
	}
	count(active, w.outputs, w)
	r.started(x)
	w.stream.mu.Lock()
	for i, p := range parts {
		p.walk, p.lane.part, p.listed = w, p, p.head.Watermark
		if i == 0 || p.listed < w.after {
			w.after = p.listed
		}
	}
	w.lanes = parts
	w.start()
	w.stream.mu.Unlock()
	// An output that was held meanwhile did not find these lanes at work.
	for _, p := range parts {
		if p.lane.out.isHeld() {
			w.stream.mu.Lock()
			if p.walk == w {
				p.leave()
			}
			w.stream.mu.Unlock()
		}
	}
	r.push(w)
}

func outputsOf(parts []*resyncLane) string {
	var names []string
	for _, p := range parts {
		names = append(names, p.id.Output)
	}
	return strings.Join(names, "\n")
}

// started notes that a re-sync has begun, and from where its pace is taken.
func (r *resyncer) started(x *resync) {
	a := r.source.agent
	x.mu.Lock()
	first, paced := x.state == progress.ResyncQueued, !x.pace.since.IsZero()
	if first {
		x.state, x.began = progress.ResyncRunning, r.source.now()
	}
	x.mu.Unlock()
	if first {
		a.cfg.Log.Info().Stringer("resync", x.order.ID).Time("from", x.order.From).Time("to", x.order.To).Msg("re-sync begins")
	}
	if !paced {
		s := a.resyncStatus(x)
		x.mu.Lock()
		x.pace = pace{since: time.Now(), objects: float64(s.Count.Objects + s.Count.Passed), share: s.Share}
		x.mu.Unlock()
	}
}

// forget drops the parts of re-syncs that are over.
func (r *resyncer) forget(open []*resync) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.parts {
		if !slices.ContainsFunc(open, func(x *resync) bool { return x.order.ID == id.Resync }) {
			delete(r.parts, id)
		}
	}
}

// finish notes that nothing of a re-sync is left in the source, if all streams
// are known, and ends it if that is so in all of its sources.
func (r *resyncer) finish(ctx context.Context, x *resync) error {
	s := r.source
	select {
	case <-s.walked:
	default:
		return nil
	}
	r.mu.Lock()
	r.finished[x.order.ID] = true
	r.mu.Unlock()
	if !s.agent.nothingLeftOf(x) {
		return nil
	}
	return s.agent.endResync(ctx, x, progress.ResyncDone)
}

// nothingLeftOf reports whether a re-sync is finished in all of its sources.
func (a *Agent) nothingLeftOf(x *resync) bool {
	for _, s := range a.sources {
		r := s.resyncer
		r.mu.Lock()
		finished := r.finished[x.order.ID]
		r.mu.Unlock()
		if !finished && slices.Contains(x.order.Sources, s.id) {
			return false
		}
	}
	return true
}

// streams returns the streams that an order may be for. If they do not do, and
// the agent does not run, the source is discovered once more.
func (r *resyncer) streams(ctx context.Context, keep bool, do func([]progress.Stream) bool) (ids []progress.Stream, err error) {
	s := r.source
	switch {
	case s.pinned():
		return s.product(), nil
	case s.agent.resyncs.isRunning():
		select {
		case <-s.walked:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the streams to be discovered: %w", ctx.Err())
		}
		for _, st := range s.all() {
			ids = append(ids, st.id)
		}
		return ids, nil
	}
	known, found, err := s.agent.cfg.Checkpoint.Source(s.id)
	if err != nil {
		return nil, err
	}
	if ids = s.configured(known.Streams); len(ids) > 0 && do(ids) {
		return ids, nil
	}
	w := &walk{source: s, found: make(map[progress.Stream]bool)}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	if w.failed != nil {
		return nil, w.failed
	}
	for id := range w.found {
		if !slices.Contains(known.Streams, id) {
			known.Streams = append(known.Streams, id)
		}
	}
	if found && keep {
		// The next run may not discover anew, and has to know them.
		err = s.agent.cfg.Checkpoint.Commit(&progress.Changes{Sources: map[progress.SourceID]progress.Source{s.id: known}})
	}
	return s.configured(known.Streams), err
}
