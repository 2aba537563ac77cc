package agent

import (
	"context"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

const (
	// parkedEvery is how often the agent looks for parked objects that are due.
	parkedEvery = time.Minute
	// parkedAtOnce is how many of them are tried at once.
	parkedAtOnce = 256

	firstParkedRetry = 5 * time.Minute
	maxParkedRetry   = 6 * time.Hour
	// corruptRetries is for how long an object is tried again whose content
	// was wrong: it may have been written over.
	corruptRetries = 24 * time.Hour
)

// nextTry is when a parked object is tried again by itself; zero if only an
// operator can say that it would help.
func nextTry(e *progress.Entry, now time.Time) time.Time {
	wait := maxParkedRetry
	if e.Attempts < 8 {
		wait = min(firstParkedRetry<<(e.Attempts-1), maxParkedRetry)
	}
	switch e.Reason {
	case record.Denied, record.KMSDenied, record.Archived, record.Changed:
	case record.Corrupt, record.Truncated:
		if now.Sub(e.FirstSeen) > corruptRetries {
			return time.Time{}
		}
	default:
		return time.Time{}
	}
	return now.Add(wait)
}

// park writes down that the object, or one record of it, can't be delivered
// now. The stream's mutex is held.
func (r *round) park(t *target, rec int, reason record.Reason, err error, at int) {
	s := t.stream.source
	now := s.now()
	e := progress.Entry{
		Lane: t.lane.id, Position: t.position, Record: rec, Reason: reason, At: at, Attempts: 1, FirstSeen: now,
		ETag: t.etag,
	}
	if err != nil {
		e.Error = err.Error()
	}
	if rec == progress.WholeObject {
		e.Acked = t.acked.Clone()
	}
	if i := t.retried(rec); i >= 0 {
		e.Attempts = t.retry[i].Attempts + 1
		e.FirstSeen = t.retry[i].FirstSeen
		if t.renewed == nil {
			t.renewed = make(map[int]bool)
		}
		t.renewed[rec] = true
	}
	e.NextTry = nextTry(&e, now)
	r.changes.Park = append(r.changes.Park, e)
	s.count.parked.Add(1)
	l := s.log.Warn().Str("output", t.lane.id.Output).Str("key", t.entry.Key).Str("id", string(e.ID())).
		Str("reason", string(reason)).Str("error", e.Error)
	if at >= 0 {
		l = l.Int("record", at)
	}
	if !e.NextTry.IsZero() {
		l = l.Time("next_try", e.NextTry)
	}
	if rec == progress.WholeObject {
		l.Msg("object is parked")
	} else {
		l.Msg("record is parked; the others of its object go on")
	}
}

// unpark writes down what a new attempt at parked entries has mended. The
// stream's mutex is held.
func (r *round) unpark(t *target, how progress.Outcome) {
	for _, e := range t.retry {
		if t.renewed[e.Record] {
			continue
		}
		if e.Record == progress.WholeObject {
			r.changes.Settled = append(r.changes.Settled, progress.ObjectSettled{Lane: e.Lane, Position: e.Position, Outcome: how})
		} else {
			r.changes.Unpark = append(r.changes.Unpark, e)
		}
		t.stream.source.log.Info().Str("output", e.Lane.Output).Str("key", t.entry.Key).Str("id", string(e.ID())).
			Str("reason", string(e.Reason)).Msg("parked object is delivered")
	}
}

// retryParked tries parked objects again when they are due, until ctx ends;
// with Once, each of them one time, due or not.
func (s *source) retryParked(ctx context.Context) {
	book, ok := s.agent.cfg.Checkpoint.(ParkedBook)
	if !ok || s.agent.cfg.Only != 0 {
		s.markParkedTried()
		return
	}
	if s.agent.cfg.Once {
		select {
		case <-s.walked: // by now all streams are there
		case <-ctx.Done():
			return
		}
		if err := s.retryOnce(book, true); err != nil {
			s.agent.fail(checkpointError(err))
		}
		s.markParkedTried()
		return
	}
	for sleep(ctx, jitter(parkedEvery)) {
		if err := s.retryOnce(book, false); err != nil {
			s.agent.fail(checkpointError(err))
			return
		}
	}
}

func (s *source) markParkedTried() {
	s.mu.Lock()
	s.parkedTried = true
	s.mu.Unlock()
	s.agent.progressed()
}

// retryOnce queues what is due, or all.
func (s *source) retryOnce(book ParkedBook, all bool) error {
	type object struct {
		lane     progress.Lane
		position string
	}
	due := make(map[object][]progress.Entry)
	now := s.now()
	err := book.Parked(func(e progress.Entry) bool {
		if e.Lane.Source == s.id && (all || !e.NextTry.IsZero() && !e.NextTry.After(now)) && s.lane(e.Lane) != nil {
			o := object{e.Lane, e.Position}
			due[o] = append(due[o], e)
		}
		return all || len(due) < parkedAtOnce
	})
	if err != nil {
		return err
	}
	for o, entries := range due {
		l := s.lane(o.lane)
		if l == nil || l.out.isHeld() {
			continue
		}
		st := l.of
		stamp, class := cloudtrail.ParsePosition(st.id, o.position)
		if class == cloudtrail.Log {
			st.retry(st.found(listed{listing.Entry{Key: st.prefix + o.position}, o.position, stamp}), l, entries)
		}
	}
	return nil
}

// lane returns a lane that is worked at, or nil: its stream or its output may
// be excluded by now.
func (s *source) lane(id progress.Lane) *lane {
	s.mu.Lock()
	st := s.streams[id.Stream]
	s.mu.Unlock()
	if st == nil {
		return nil
	}
	for _, l := range st.lanes {
		if l.id == id {
			return l
		}
	}
	return nil
}

// retry queues a new attempt at the parked entries of one object.
func (st *stream) retry(f *found, l *lane, entries []progress.Entry) {
	st.mu.Lock()
	if l.retrying[f.position] != nil || l.resyncing[f.position] != nil {
		st.mu.Unlock()
		return
	}
	t := &target{found: f, lane: l, class: late, retry: entries, total: -1}
	if i := t.retried(progress.WholeObject); i >= 0 {
		t.acked, t.etag = entries[i].Acked.Clone(), entries[i].ETag
	} else {
		for _, e := range entries {
			t.only = t.only.Add(e.Record, e.Record+1)
		}
	}
	l.retrying[f.position] = t
	st.mu.Unlock()
	st.source.queue.put(&job{found: f, class: late, targets: []*target{t}})
}
