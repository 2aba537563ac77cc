package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// listWorkers is how many LISTs of a source may be under way at once.
const listWorkers = 32

// source is one source at work: its streams, listed and fetched by workers of
// its own, so that nothing that is wrong with one source slows another.
type source struct {
	agent   *Agent
	cfg     SourceConfig
	id      progress.SourceID
	log     zerolog.Logger
	outputs []*delivery // that take the source

	known progress.Source // what the checkpoint remembers; changed by the discovery only
	heads map[string]map[progress.Stream]progress.Head

	mu       sync.Mutex // guards streams, since, labelled
	streams  map[progress.Stream]*stream
	since    sinceBegun
	labelled map[string]map[string]string

	walked chan struct{} // closed when all streams are known
	// parkedDue: parked objects are due before their time.
	parkedDue chan struct{}
	clock     clock
	memory    *memory // its share: a source that stalls keeps no other from going on
	schedule  *schedule
	queue     *queue
	trouble   *troubles
	count     sourceCount
	timers    timers
	resyncer  *resyncer
	progress  atomic.Int64 // when it last got on, for Once; nanoseconds of agent.mono
}

// sinceBegun is what a source has come to since Run began. A run with Once ends
// by it.
type sinceBegun struct {
	failed      error            // why the source can't go on
	incomplete  map[string]error // what could not be looked at, the rest going on
	discovered  bool             // all streams are known
	parkedTried bool             // each parked object was, once
}

// sourceCount counts what a source did, for summaries.
type sourceCount struct {
	lists, gets, bytes, objects, records, foreign, gone, parked, filtered atomic.Int64
}

func newSource(a *Agent, cfg SourceConfig, outputs []*delivery) *source {
	log := a.cfg.Log.With().Str("source", cfg.Name).Logger()
	s := &source{
		agent: a, cfg: cfg, id: cfg.id(), log: log, outputs: outputs,
		streams:  make(map[progress.Stream]*stream),
		since:    sinceBegun{incomplete: make(map[string]error)},
		labelled: make(map[string]map[string]string),
		walked:   make(chan struct{}), parkedDue: make(chan struct{}, 1),
		schedule: newSchedule(cfg.MaxListsPerMinute),
		trouble:  newTroubles(log),
		clock:    clock{wall: a.cfg.Now},
		memory:   newMemory(a.cfg.inFlight()/int64(max(1, len(a.cfg.Sources))), a.cfg.MaxRecord),
	}
	s.queue = newQueue(s, a.cfg.Memory/int64(max(1, len(a.cfg.Sources))))
	s.resyncer = newResyncer(s)
	return s
}

// run works until ctx ends: it lists, fetches and discovers. It returns when
// all of its workers have.
func (s *source) run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return s.giveUp(err)
	}
	if err := s.agent.met(); err != nil {
		return checkpointError(err)
	}
	s.join(s.configured(s.known.Streams))

	var wg sync.WaitGroup
	defer func() {
		s.schedule.close()
		s.resyncer.close()
		s.queue.close()
		wg.Wait()
	}()
	for range listWorkers {
		wg.Go(func() {
			for l := s.schedule.next(); l != nil; l = s.schedule.next() {
				s.schedule.done(l, l.step(ctx))
			}
		})
	}
	for range s.agent.cfg.Downloads {
		wg.Go(func() { newFetcher(s).run(ctx) })
	}
	wg.Go(func() { s.retryParked(ctx) })
	wg.Go(func() { s.resyncer.run(ctx) })
	s.discover(ctx)
	<-ctx.Done()
	return nil
}

// giveUp notes that the source can't go on: with Once the others do, and the
// run fails in the end.
func (s *source) giveUp(err error) error {
	if errors.Is(err, errCheckpoint) {
		return err
	}
	s.mu.Lock()
	s.since.failed = err
	s.mu.Unlock()
	s.agent.progressed()
	return nil
}

// open finds out what the checkpoint knows of the source, and from when each
// output gets it.
func (s *source) open(ctx context.Context) error {
	known, found, err := s.agent.cfg.Checkpoint.Source(s.id)
	if err != nil {
		return checkpointError(err)
	}
	s.known = known
	s.heads = make(map[string]map[progress.Stream]progress.Head)
	unmet := 0
	for _, out := range s.outputs {
		if s.heads[out.cfg.Name], err = s.agent.cfg.Checkpoint.Heads(s.id, out.cfg.Name); err != nil {
			return checkpointError(err)
		}
		if _, ok := known.Outputs[out.cfg.Name]; !ok {
			unmet++
		}
	}
	if found && unmet == 0 {
		s.log.Info().Int("streams", len(known.Streams)).Msg("source goes on where it was")
		return s.dropOutputs(known)
	}
	// From when an output gets the source is resolved once, by S3's clock.
	if err := s.meet(ctx); err != nil {
		return err
	}
	now := s.now()
	next := progress.Source{FirstSeen: known.FirstSeen, Discovered: known.Discovered, Streams: known.Streams, Outputs: maps.Clone(known.Outputs)}
	if !found {
		next.FirstSeen = now
	}
	if next.Outputs == nil {
		next.Outputs = make(map[string]progress.Begin)
	}
	for _, out := range s.outputs {
		if _, ok := next.Outputs[out.cfg.Name]; ok {
			continue
		}
		b := progress.Begin{Start: now, FirstSeen: now}
		if !found {
			b.Start = s.cfg.Start(now).UTC()
			if k, ok := s.agent.cfg.Checkpoint.(Keeper); ok && k.Rebuilt() {
				// The state before this one was lost: what was delivered is
				// not known any more, so all that can be late is sent again.
				b.Start = minTime(b.Start, now.Add(-s.cfg.LateHorizon))
			}
		}
		next.Outputs[out.cfg.Name] = b
		s.log.Info().Str("output", out.cfg.Name).Time("start", b.Start).Msg("output meets source")
	}
	// A crash before this commit resolves start anew, later; nothing was sent.
	if err := s.agent.settler.commitNow(ctx, &progress.Changes{Sources: map[progress.SourceID]progress.Source{s.id: next}}); err != nil {
		return err
	}
	s.known = next
	return s.dropOutputs(next)
}

// dropOutputs forgets the outputs that the source had and has no longer.
func (s *source) dropOutputs(known progress.Source) error {
	k, ok := s.agent.cfg.Checkpoint.(Keeper)
	if !ok {
		return nil
	}
	for name := range known.Outputs {
		taken := slices.ContainsFunc(s.outputs, func(d *delivery) bool { return d.cfg.Name == name })
		if taken || slices.Contains(s.agent.cfg.Dormant, name) {
			continue
		}
		owed, err := k.Forget(s.id, name)
		if err != nil {
			return checkpointError(err)
		}
		delete(s.known.Outputs, name)
		s.log.Warn().Str("output", name).Int("objects_owed", owed).
			Msg("output no longer takes this source: its progress is dropped")
	}
	return nil
}

// meet asks S3 for its time, and so finds out whether the bucket can be listed.
func (s *source) meet(ctx context.Context) error {
	for n := 1; ; n++ {
		_, err := s.list(ctx, listing.Request{Prefix: cloudtrail.Root(s.cfg.Prefix), Limit: 1})
		if err == nil {
			s.trouble.over(whatListing)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.trouble.met(whatListing, err, "")
		if s.hopeless(n, err) {
			return err
		}
		if !sleep(ctx, s.backoff(n, err)) {
			return ctx.Err()
		}
	}
}

const whatListing = "listing the bucket"

// hopeless reports whether a run that is to end should wait no longer for a
// source that has failed n times.
func (s *source) hopeless(n int, err error) bool {
	if !s.agent.ends() {
		return false
	}
	switch fault.KindOf(err) {
	case fault.NoBucket, fault.WrongRegion, fault.BadCredentials, fault.Misconfigured, fault.Denied:
		return n >= 2
	case fault.Unreachable:
		return n >= attempts
	}
	return false
}

// list makes one LIST and takes S3's time from it.
func (s *source) list(ctx context.Context, r listing.Request) (listing.Page, error) {
	s.count.lists.Add(1)
	page, err := s.cfg.Store.List(ctx, r)
	if err == nil {
		s.checkClock(s.clock.set(page.At))
		s.moved()
	}
	return page, err
}

// maxAhead is how far off the local clock may be before it is said: S3 itself
// refuses requests that are signed a quarter of an hour off.
const maxAhead = 5 * time.Minute

// checkClock says that the local clock is wrong. Nothing hangs on it: all that
// is remembered is by S3's clock.
func (s *source) checkClock(ahead time.Duration) {
	const what = "the local clock"
	if ahead.Abs() <= maxAhead {
		s.trouble.over(what)
		return
	}
	s.trouble.met(what, fmt.Errorf("it is %v ahead of S3's", ahead.Round(time.Second)),
		"set the clock of this machine; nothing is lost by it, since trailpoll goes by S3's clock")
}

// listFailed says that a stream can't be listed.
func (s *source) listFailed(l *lister, err error) {
	what := whatListing
	if k := fault.KindOf(err); k == fault.Denied || k == fault.Temporary {
		what = l.what()
		l.troubled = true
	}
	s.trouble.met(what, err, "")
	if !s.hopeless(l.failures, err) {
		return
	}
	if fault.KindOf(err) != fault.Denied {
		_ = s.giveUp(err)
		return
	}
	// One stream that may not be listed is no reason to leave the others.
	s.lacks(what, err)
	l.stream.mu.Lock()
	for _, x := range l.lanes {
		x.listedOnce = true
	}
	l.stream.mu.Unlock()
}

// lacks notes what could not be looked at, for a run that is to end.
func (s *source) lacks(what string, err error) {
	s.mu.Lock()
	s.since.incomplete[what] = err
	s.mu.Unlock()
	s.agent.progressed()
}

func (s *source) listWorks(l *lister) {
	s.trouble.overAfter(whatListing, listingQuiet)
	if l.troubled {
		l.troubled = false
		s.trouble.over(l.what())
	}
}

// what names the listing of one stream, as trouble.
func (l *lister) what() string { return whatListing + " at " + l.stream.id.String() }

// listingQuiet is for how long no LIST of a source must have failed before that
// trouble is over: others may go well meanwhile.
const listingQuiet = 15 * time.Second

// backoff is how long to wait after the n-th failure in a row.
func (s *source) backoff(n int, err error) time.Duration {
	most := 5 * time.Minute
	if s.agent.ends() {
		most = 10 * time.Second
	}
	return max(expBackoff(n, time.Second, most), min(fault.RetryAfterOf(err), most))
}

// cadence is when a stream is listed next, that had its last new object that
// long ago.
func (s *source) cadence(quiet time.Duration, never bool) time.Duration {
	return jitter(plan.Cadence(quiet, never, s.cfg.Refresh, s.cfg.IdleRefresh))
}

// recent reports whether what the lanes have listed ends so near to now that
// the stream is to be taken for an active one.
func (s *source) recent(lanes []*lane) bool {
	return slices.ContainsFunc(lanes, func(l *lane) bool {
		t, ok := cloudtrail.Instant(l.listed)
		return ok && s.now().Sub(t) < s.cfg.IdleRefresh*4 && l.listed != l.of.floor(l.begin.Start)
	})
}

// labels returns the labels that records of an account carry.
func (s *source) labels(account string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.labelled[account]; ok {
		return l
	}
	l := s.cfg.Labels
	if own := s.cfg.AccountInfo[account].Labels; len(own) > 0 {
		l = maps.Clone(own)
		for k, v := range s.cfg.Labels {
			if _, ok := l[k]; !ok {
				l[k] = v
			}
		}
	}
	s.labelled[account] = l
	return l
}

// join begins to list streams that were not known.
func (s *source) join(ids []progress.Stream) {
	for _, id := range ids {
		s.mu.Lock()
		if s.streams[id] != nil {
			s.mu.Unlock()
			continue
		}
		st := newStream(s, id)
		s.streams[id] = st
		s.mu.Unlock()
		st.mu.Lock()
		var lanes []*lane
		for _, l := range st.lanes {
			if !l.out.isHeld() {
				lanes = append(lanes, l)
			}
		}
		st.list(lanes)
		st.mu.Unlock()
	}
}

// all returns the streams in a snapshot.
func (s *source) all() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.streams))
}

// now is the time by S3's clock, as far as it is known.
func (s *source) now() time.Time { return s.clock.now() }

// moved notes that the source got on.
func (s *source) moved() { s.progress.Store(int64(time.Since(s.agent.mono))) }

var errCheckpoint = errors.New("checkpoint")

// checkpointError marks an error of the checkpoint: without it nothing can go on.
func checkpointError(err error) error { return fmt.Errorf("%w: %w", errCheckpoint, err) }

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sleep waits for d and reports whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
