package agent

import (
	"context"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

const (
	// parkedEvery is how often the agent looks for parked objects that are due.
	parkedEvery = time.Minute
	// parkedAtOnce is how many of them are taken up at once, and parkedSoon when
	// the next are, if there are more.
	parkedAtOnce = 256
	parkedSoon   = 5 * time.Second

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
	r.settler.asOrdered(t, &e)
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
	said := "parked object is delivered"
	if how == progress.Gone {
		said = "parked object is no longer in the bucket: given up"
	}
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
			Str("reason", string(e.Reason)).Msg(said)
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
		if _, err := s.retryOnce(book, true); err != nil {
			s.agent.fail(checkpointError(err))
		}
		s.markParkedTried()
		return
	}
	for wait := jitter(parkedSoon); ; { // what came due while no agent ran
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.parkedDue:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
		more, err := s.retryOnce(book, false)
		if err != nil {
			s.agent.fail(checkpointError(err))
			return
		}
		if wait = jitter(parkedEvery); more {
			wait = parkedSoon
		}
	}
}

func (s *source) markParkedTried() {
	s.mu.Lock()
	s.since.parkedTried = true
	s.mu.Unlock()
	s.agent.progressed()
}

// retryOnce queues what is due, or all. It reports whether more may be due.
func (s *source) retryOnce(book ParkedBook, all bool) (more bool, err error) {
	type object struct {
		lane     progress.Lane
		position string
	}
	due := make(map[object][]progress.Entry)
	now := s.now()
	err = book.Parked(func(e progress.Entry) bool {
		if e.Lane.Source != s.id || !e.Skipped.IsZero() || !all && (e.NextTry.IsZero() || e.NextTry.After(now)) {
			return true
		}
		if l := s.lane(e.Lane); l == nil || l.out.isHeld() || l.isRetrying(e.Position) {
			return true
		}
		o := object{e.Lane, e.Position}
		due[o] = append(due[o], e)
		return all || len(due) < parkedAtOnce
	})
	if err != nil || len(due) == 0 {
		return false, err
	}
	var claims []*claimed
	for o, entries := range due {
		if l := s.lane(o.lane); l != nil {
			if c := s.claim(l, o.position, entries); c != nil {
				claims = append(claims, c)
			}
		}
	}
	// An attempt that ended since the entries were read has settled them, and an
	// operator may have skipped them. From here on that can't happen any more.
	still := make(map[progress.ParkedID]bool)
	err = book.Parked(func(e progress.Entry) bool {
		if e.Lane.Source == s.id && e.Skipped.IsZero() {
			still[e.ID()] = true
		}
		return true
	})
	for _, c := range claims {
		c.begin(func(id progress.ParkedID) bool { return err == nil && still[id] })
	}
	return !all && len(due) >= parkedAtOnce, err
}

// isRetrying reports whether a parked object is being tried again.
func (l *lane) isRetrying(position string) bool {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	return l.retrying[position] != nil || l.resyncing[position] != nil
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
