package agent

import (
	"context"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// eventKind is what happened to records of a target, or to the target.
type eventKind int

const (
	acked    eventKind = iota // [from, to) were acknowledged
	lost                      // [from, to) have to be sent again
	refused                   // [from, to) can't be delivered: each is parked
	produced                  // all records have been handed to the output: there are `to` of them
	rest                      // as produced, but what comes after `to` can't be delivered
	cut                       // `to` records were handed on, then the reading failed: again, later
	gone                      // the object is not in the bucket any more
	failed                    // the object can't be fetched: it is parked
	doubted                   // [from, to) were refused, and it may be the receiver: no event yet
)

// event is one thing that happened to a target.
type event struct {
	target   *target
	kind     eventKind
	from, to int
	reason   record.Reason
	err      error
	at       int // with rest and failed: the record, -1 if unknown

	again *job // with cut
	wait  time.Duration
}

// group is events that become durable together; done is called when they are,
// or when the agent is aborted.
type group struct {
	events []event
	done   func()
}

// settler is the one writer of the checkpoint. It takes what has happened
// since its last commit and makes it durable in one transaction, so that a
// thousand settlements cost one fsync.
type settler struct {
	agent *Agent

	mu      sync.Mutex
	changed *sync.Cond
	groups  []group
	touched map[*lane]bool       // whose head moved without a settlement
	passed  map[*resyncLane]bool // the same, of re-syncs
	now     []*direct
	ordered map[progress.ParkedID]progress.Entry // what operators said while an output is held
	closed  bool

	commits, settled int64 // guarded by mu, for summaries
	took             latency
}

// direct is a change that somebody waits for.
type direct struct {
	changes *progress.Changes
	// make, if not nil, makes the changes, while nobody else commits.
	make func() (*progress.Changes, error)
	done chan error
}

func newSettler(a *Agent) *settler {
	s := &settler{agent: a, touched: make(map[*lane]bool), passed: make(map[*resyncLane]bool), ordered: make(map[progress.ParkedID]progress.Entry)}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// submit hands over a group of events.
func (s *settler) submit(g group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		g.done()
		return
	}
	s.groups = append(s.groups, g)
	s.changed.Signal()
}

// barrier waits until everything submitted before is durable, or given up.
func (s *settler) barrier() {
	done := make(chan struct{})
	s.submit(group{done: func() { close(done) }})
	<-done
}

// touch has the lane's head written with the next commit.
func (s *settler) touch(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched[l] = true
	s.changed.Signal()
}

// commitNow makes changes durable before it returns.
func (s *settler) commitNow(ctx context.Context, c *progress.Changes) error {
	return s.wait(ctx, &direct{changes: c, done: make(chan error, 1)})
}

// commitMade is commitNow with changes that are made of what the checkpoint
// holds: nobody else commits between the reading and the writing.
func (s *settler) commitMade(ctx context.Context, build func() (*progress.Changes, error)) error {
	return s.wait(ctx, &direct{make: build, done: make(chan error, 1)})
}

// wait waits until a change is durable.
func (s *settler) wait(ctx context.Context, d *direct) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return context.Canceled
	}
	s.now = append(s.now, d)
	s.changed.Signal()
	s.mu.Unlock()
	select {
	case err := <-d.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close has run return when everything submitted is durable.
func (s *settler) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
}

// run commits until close is called, or abort ends.
func (s *settler) run(abort context.Context) {
	stop := context.AfterFunc(abort, s.close)
	defer stop()
	for {
		s.mu.Lock()
		for len(s.groups) == 0 && len(s.touched) == 0 && len(s.passed) == 0 && len(s.now) == 0 && !s.closed {
			s.changed.Wait()
		}
		groups, touched, passed, now := s.groups, s.touched, s.passed, s.now
		s.groups, s.touched, s.passed, s.now = nil, make(map[*lane]bool), make(map[*resyncLane]bool), nil
		s.mu.Unlock()
		if len(groups) == 0 && len(touched) == 0 && len(passed) == 0 && len(now) == 0 {
			return
		}
		if err := s.round(abort, groups, touched, passed, now); err != nil {
			s.giveUp(err)
			return
		}
	}
}

// giveUp ends the settling after a commit that was given up on: what comes
// later builds on it, and must not become durable without it. A watermark would
// pass what was never written down.
func (s *settler) giveUp(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, g := range s.groups {
		g.done()
	}
	for _, d := range s.now {
		d.done <- err
	}
	s.groups, s.now = nil, nil
}

// round makes durable what has been submitted.
func (s *settler) round(abort context.Context, groups []group, touched map[*lane]bool, passed map[*resyncLane]bool, now []*direct) error {
	r := &round{settler: s, lanes: touched, resyncs: passed, seen: make(map[*target]bool)}
	for _, g := range groups {
		for i := range g.events {
			r.apply(&g.events[i])
		}
	}
	r.conclude()
	now = r.mergeAll(now)
	err := s.commit(abort, &r.changes)
	if err == nil {
		r.after()
	}
	for _, d := range now {
		d.done <- err
	}
	for _, g := range groups {
		g.done()
	}
	s.agent.progressed()
	return err
}

// commit makes changes durable. A commit that fails is tried again until it
// succeeds, since nothing may go on without it: senders run out of tokens
// meanwhile, and what is sent and not committed stays bounded.
func (s *settler) commit(abort context.Context, c *progress.Changes) error {
	if c.Empty() {
		return nil
	}
	for n := 1; ; n++ {
		// A crash before Commit returns: what was acknowledged since the last
		// one is sent again, at most the batches that hold a token. A crash
		// after it: nothing of this is ever sent again.
		began := time.Now()
		err := s.agent.cfg.Checkpoint.Commit(c)
		if err == nil {
			s.took.note(time.Since(began))
			s.agent.trouble.over(whatCommitting)
			return nil
		}
		if abort.Err() != nil {
			return err
		}
		if fault.KindOf(err) == fault.Misconfigured { // damaged: no use in trying on
			s.agent.fail(checkpointError(err))
			return checkpointError(err)
		}
		s.agent.trouble.met(whatCommitting, err, "")
		if !sleep(abort, expBackoff(n, 100*time.Millisecond, 10*time.Second)) {
			return err
		}
	}
}

const whatCommitting = "committing to the checkpoint"

// round is one commit in the making.
type round struct {
	settler *settler
	changes progress.Changes
	seen    map[*target]bool // met in this round
	order   []*target        // the same, in order
	settled []*target
	retried []*target // parked again, or not parked any more
	requeue []*target
	lanes   map[*lane]bool
	resyncs map[*resyncLane]bool
}

// apply works one event into its target.
func (r *round) apply(e *event) {
	t := e.target
	st := t.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	if !r.seen[t] {
		r.seen[t] = true
		r.order = append(r.order, t)
	}
	switch e.kind {
	case acked:
		st.source.moved()
		t.acked = t.acked.Add(e.from, e.to)
		t.outstanding -= e.to - e.from
	case lost:
		t.lost = true
		t.outstanding -= e.to - e.from
	case refused:
		for i := e.from; i < e.to; i++ {
			r.park(t, i, e.reason, e.err, i)
		}
		t.acked = t.acked.Add(e.from, e.to) // parked by itself is settled
		t.outstanding -= e.to - e.from
	case produced:
		t.total = e.to
	case cut:
		t.total, t.lost = e.to, true
		t.again, t.wait = e.again, e.wait
	case rest:
		t.total = e.to
		t.broken = &broken{e.reason, e.err, e.at}
	case gone:
		r.settle(t, progress.Gone)
	case failed:
		t.broken = &broken{e.reason, e.err, e.at}
		t.total = 0
	}
}

// conclude draws from each target that was met what is to be written of it.
func (r *round) conclude() {
	for _, t := range r.order {
		t.stream.mu.Lock()
		r.concludeOne(t)
		t.stream.mu.Unlock()
	}
	for l := range r.lanes {
		st := l.of
		st.mu.Lock()
		st.advance(l)
		r.changes.Heads = append(r.changes.Heads, progress.LaneHead{Lane: l.id, Head: l.head})
		st.mu.Unlock()
	}
	r.concludeResyncs()
}

func (r *round) concludeOne(t *target) {
	switch {
	case t.settled:
	case t.broken != nil && t.only != nil && t.outstanding == 0:
		// Records that were parked one by one stay so, with the new reason:
		// the others of the object were delivered.
		for _, e := range t.retry {
			if !t.acked.Has(e.Record) {
				r.park(t, e.Record, t.broken.reason, t.broken.err, e.Record)
			}
		}
		r.settle(t, progress.Delivered)
	case t.broken != nil && t.outstanding == 0 && t.total >= 0 && !t.lost:
		r.park(t, progress.WholeObject, t.broken.reason, t.broken.err, t.broken.at)
		r.settle(t, progress.Delivered)
	case t.done():
		r.settle(t, progress.Delivered)
	default:
		r.partly(t)
		if t.lost && t.outstanding == 0 && t.total >= 0 && !t.abandoned {
			r.requeue = append(r.requeue, t)
		}
	}
}

// partly writes down what of the target is acknowledged so far, so that a
// crash does not repeat it.
func (r *round) partly(t *target) {
	if len(t.acked) == 0 {
		return
	}
	if t.resync != nil {
		r.partlyResynced(t)
		return
	}
	if t.retry == nil {
		r.changes.Partial = append(r.changes.Partial, progress.ObjectPartial{
			Lane: t.lane.id, Position: t.position, Acked: t.acked.Clone(), ETag: t.etag,
		})
		return
	}
	if i := t.retried(progress.WholeObject); i >= 0 {
		e := t.retry[i]
		e.Acked, e.ETag = t.acked.Clone(), t.etag
		r.settler.asOrdered(t, &e)
		r.changes.Park = append(r.changes.Park, e)
	}
}

// settle notes that the target is done with: settled, or parked as a whole.
func (r *round) settle(t *target, how progress.Outcome) {
	if t.settled {
		return
	}
	t.lane.settle(t)
	if t.retry != nil {
		r.retried = append(r.retried, t)
		r.unpark(t, how)
		return
	}
	r.settled = append(r.settled, t)
	if t.resync != nil {
		r.resynced(t)
	}
	if !t.abandoned && (t.resync == nil || t.adopted) {
		r.lanes[t.lane] = true
	}
	if t.broken == nil || how == progress.Gone {
		r.changes.Settled = append(r.changes.Settled, progress.ObjectSettled{Lane: t.lane.id, Position: t.position, Outcome: how})
	}
}

// after lets go of what is durable now.
func (r *round) after() {
	for _, t := range r.settled {
		st := t.stream
		st.mu.Lock()
		t.lane.durable(t)
		st.room()
		st.mu.Unlock()
		t.stream.source.settledOne(t)
	}
	r.afterResyncs()
	for _, t := range r.retried {
		t.stream.mu.Lock()
		if t.lane.retrying[t.position] == t {
			delete(t.lane.retrying, t.position)
		}
		t.stream.mu.Unlock()
	}
	for _, t := range r.requeue {
		t.stream.mu.Lock()
		j, wait := t.again, t.wait
		t.lost, t.total, t.again, t.wait, t.broken = false, -1, nil, 0, nil
		t.stream.mu.Unlock()
		if j == nil {
			j = &job{found: t.found, class: t.class, targets: []*target{t}}
		}
		t.stream.source.later(r.settler.agent.working, j, wait)
	}
	r.settler.mu.Lock()
	r.settler.commits++
	r.settler.settled += int64(len(r.settled))
	r.settler.mu.Unlock()
}

// mergeAll adds what others want to have committed, and returns those who wait
// for that: all but those whose change could not be made.
func (r *round) mergeAll(now []*direct) []*direct {
	waiting := now[:0]
	for _, d := range now {
		if d.make != nil {
			c, err := d.make()
			if err != nil {
				d.done <- err
				continue
			}
			d.changes = c
		}
		r.merge(d.changes)
		waiting = append(waiting, d)
	}
	return waiting
}

// merge adds what somebody else wants to have committed.
func (r *round) merge(c *progress.Changes) {
	for id, s := range c.Sources {
		if r.changes.Sources == nil {
			r.changes.Sources = make(map[progress.SourceID]progress.Source)
		}
		r.changes.Sources[id] = s
	}
	r.changes.Settled = append(r.changes.Settled, c.Settled...)
	r.changes.Partial = append(r.changes.Partial, c.Partial...)
	r.changes.Unpark = append(r.changes.Unpark, c.Unpark...)
	r.changes.Park = append(r.changes.Park, c.Park...)
	r.changes.Heads = append(r.changes.Heads, c.Heads...)
	r.changes.Covered = append(r.changes.Covered, c.Covered...)
	r.changes.Resyncs = append(r.changes.Resyncs, c.Resyncs...)
	r.changes.ForgetResyncs = append(r.changes.ForgetResyncs, c.ForgetResyncs...)
}
