package agent

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/record"
)

// get makes one GET.
func (s *source) get(ctx context.Context, key, etag string) (listing.Body, error) {
	s.count.gets.Add(1)
	return s.cfg.Store.Get(ctx, key, etag)
}

const whatFetching = "fetching objects"

// fetchingQuiet is for how long no GET of a source must have failed before that
// trouble is over: longer than an object that fails waits to be tried again.
const fetchingQuiet = 6 * time.Minute

// fetchFailed decides what becomes of an object that could not be read.
func (s *source) fetchFailed(ctx context.Context, j *job, err error) {
	j.tries++
	park := func(reason record.Reason, at int) {
		var events []event
		for _, t := range j.targets {
			events = append(events, event{target: t, kind: failed, reason: reason, err: err, at: at})
		}
		s.agent.settler.submit(group{events, func() {}})
	}
	if e, ok := errors.AsType[*cloudtrail.Error](err); ok {
		// What the gzip stream itself says is tried once more at once, since
		// it may have been the way and not the object; the rest is for certain.
		j.failures++
		if j.failures < 2 {
			s.again(ctx, j, err, 0)
			return
		}
		park(e.Reason, e.Record)
		return
	}
	switch fault.KindOf(err) {
	case fault.Archived:
		park(record.Archived, -1)
		return
	case fault.Gone:
		if j.absent++; j.absent >= 3 {
			if s.isGone(ctx, j) {
				var events []event
				for _, t := range j.targets {
					events = append(events, event{target: t, kind: gone})
				}
				s.count.gone.Add(1)
				s.log.Info().Str("key", j.entry.Key).Msg("object is gone from the bucket: nothing of it is left to deliver")
				s.agent.settler.submit(group{events, func() {}})
				return
			}
			j.absent = 0
		}
		s.again(ctx, j, err, retryDelay(j.absent+1))
		return
	case fault.Changed:
		if j.failures++; j.failures >= attempts {
			park(record.Changed, -1)
			return
		}
		s.changed(ctx, j)
	case fault.Denied, fault.KMSDenied:
		if j.failures++; j.failures >= attempts {
			reason := record.Denied
			if fault.KindOf(err) == fault.KMSDenied {
				reason = record.KMSDenied
			}
			park(reason, -1)
			return
		}
	case fault.Temporary:
		if errors.Is(err, io.ErrUnexpectedEOF) {
			// The connection ended early, which may be the object's fault.
			if j.failures++; j.failures >= attempts {
				park(record.Truncated, -1)
				return
			}
		}
	}
	s.trouble.met(whatFetching, err, "")
	s.again(ctx, j, err, max(retryDelay(j.tries), min(fault.RetryAfterOf(err), maxRetryAfter)))
}

// again puts the job back into the queue after a while. Records of it that are
// on their way come back first: else they would be sent twice.
func (s *source) again(ctx context.Context, j *job, err error, wait time.Duration) {
	s.hopelessFetch(j, err)
	if p, ok := errors.AsType[errPartly](err); ok {
		var events []event
		for _, t := range j.targets {
			again := *j
			again.targets = []*target{t}
			events = append(events, event{target: t, kind: cut, to: p.n, again: &again, wait: wait})
		}
		s.agent.settler.submit(group{events, func() {}})
		return
	}
	s.later(ctx, j, wait)
}

// later queues a job after a while, and counts it as failing meanwhile.
func (s *source) later(ctx context.Context, j *job, wait time.Duration) {
	if wait <= 0 {
		s.queue.put(j)
		return
	}
	j.failing(1)
	s.timers.after(wait, func() {
		j.failing(-1)
		if ctx.Err() == nil {
			s.queue.put(j)
		}
	})
}

// isGone makes sure of an absent object by a fresh LIST.
func (s *source) isGone(ctx context.Context, j *job) bool {
	page, err := s.list(ctx, listing.Request{Prefix: j.entry.Key, Limit: 1})
	return err == nil && (len(page.Entries) == 0 || page.Entries[0].Key != j.entry.Key)
}

// changed takes a changed object for what it is now: it starts again.
func (s *source) changed(ctx context.Context, j *job) {
	page, err := s.list(ctx, listing.Request{Prefix: j.entry.Key, Limit: 1})
	if err != nil || len(page.Entries) == 0 || page.Entries[0].Key != j.entry.Key {
		return
	}
	j.fresh = page.Entries[0].ETag
}

// reads notes which content of its object the job is about to hand on. What
// is acknowledged of another one says nothing of it: there the numbers mean
// other records.
func (j *job) reads(etag string) {
	j.stream.mu.Lock()
	defer j.stream.mu.Unlock()
	for _, t := range j.targets {
		if t.etag != etag && t.etag != "" && etag != "" {
			t.acked, t.only = nil, nil // single records of it, too, are of another content
		}
		if etag != "" {
			t.etag = etag
		}
	}
}

// hopelessFetch gives a source up whose objects can't be fetched for a reason
// that is the source's, in a run that is to end.
func (s *source) hopelessFetch(j *job, err error) {
	if fault.KindOf(err) != fault.Denied && s.hopeless(j.tries, err) {
		_ = s.giveUp(err)
	}
}
