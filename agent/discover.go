package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// noOrganization, as the only organisation configured, says that there is no
// such level.
const noOrganization = "none"

// discoverWorkers is how many LISTs a discovery makes at once.
const discoverWorkers = 16

// discover finds new streams whenever it is due, until ctx ends. Where every
// level is pinned there is nothing to discover.
func (s *source) discover(ctx context.Context) {
	if s.pinned() {
		s.join(s.product())
		s.markDiscovered()
		return
	}
	began := time.Now()
	for failures := 0; ctx.Err() == nil; {
		// The time of the last discovery is remembered: a restart discovers
		// nothing that it knew. One in the future was remembered by a clock that
		// has been set back since: how long ago it was is not known, so it is due.
		since := s.now().Sub(s.known.Discovered)
		if failures == 0 && since < s.cfg.Discovery && since > -time.Minute && !s.known.Discovered.IsZero() {
			s.markDiscovered()
			wait := min(s.cfg.Discovery-since, s.cfg.Discovery)
			if !sleep(ctx, jitter(wait)) {
				return
			}
			// By now S3 has told the time.
			if since = s.now().Sub(s.known.Discovered); since >= 0 && since < s.cfg.Discovery*9/10 {
				continue
			}
		}
		err := s.discoverOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			continue
		}
		failures++
		if errors.Is(err, errCheckpoint) {
			s.agent.fail(err)
			return
		}
		if p, ok := errors.AsType[errPartial](err); ok {
			if s.agent.cfg.Once && time.Since(began) > stuckAfter {
				s.lacks("discovering "+p.prefix, p.error)
				s.markDiscovered()
				return
			}
		} else if s.trouble.met(whatListing, err, ""); s.hopeless(failures, err) {
			_ = s.giveUp(err)
			return
		}
		if !sleep(ctx, s.backoff(failures, err)) {
			return
		}
	}
}

func (s *source) markDiscovered() {
	s.mu.Lock()
	if !s.since.discovered {
		s.since.discovered = true
		close(s.walked)
	}
	s.mu.Unlock()
	s.agent.progressed()
}

// discoverOnce walks the levels once, makes what it found durable and begins
// to list it.
func (s *source) discoverOnce(ctx context.Context) error {
	began := time.Now()
	w := &walk{source: s, found: make(map[progress.Stream]bool)}
	if err := w.run(ctx); err != nil {
		return err
	}
	s.trouble.over(whatListing)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var fresh []progress.Stream
	for id := range w.found {
		if !slices.Contains(s.known.Streams, id) {
			fresh = append(fresh, id)
		}
	}
	slices.SortFunc(fresh, func(a, b progress.Stream) int { return strings.Compare(a.String(), b.String()) })
	next := s.known
	if w.failed == nil {
		next.Discovered = s.now()
	}
	next.Streams = append(slices.Clone(s.known.Streams), fresh...)
	next.Outputs = maps.Clone(s.known.Outputs)
	// A crash before this commit discovers the same again; a stream begins
	// where its outputs met the source, whenever it is found.
	if err := s.agent.settler.commitNow(ctx, &progress.Changes{Sources: map[progress.SourceID]progress.Source{s.id: next}}); err != nil {
		return err
	}
	s.known = next
	for _, id := range fresh {
		s.log.Info().Stringer("stream", id).Msg("stream discovered")
	}
	s.log.Debug().Int("streams", len(next.Streams)).Int("new", len(fresh)).Dur("took_ms", time.Since(began)).
		Msg("discovery is complete")
	s.join(s.configured(fresh))
	if w.failed != nil {
		return w.failed
	}
	s.markDiscovered()
	return nil
}

// pinned reports whether the configuration names every level.
func (s *source) pinned() bool {
	c := &s.cfg
	return len(c.Organizations) > 0 && len(c.Accounts) > 0 && len(c.LogTypes) > 0 && len(c.Regions) > 0
}

// product returns the streams of a source whose levels are all pinned.
func (s *source) product() []progress.Stream {
	var all []progress.Stream
	for _, o := range s.cfg.Organizations {
		if o == noOrganization {
			o = ""
		}
		for _, a := range s.cfg.Accounts {
			for _, t := range s.cfg.LogTypes {
				for _, r := range s.cfg.Regions {
					all = append(all, progress.Stream{Organization: o, Account: a, LogType: t, Region: r})
				}
			}
		}
	}
	return s.configured(all)
}

// configured returns the streams that the configuration lets through: what was
// discovered once may have been excluded since.
func (s *source) configured(all []progress.Stream) []progress.Stream {
	var in []progress.Stream
	for _, id := range all {
		o := id.Organization
		if o == "" {
			o = noOrganization
		}
		if lets(s.cfg.Organizations, nil, o) && lets(s.cfg.Accounts, s.cfg.ExcludeAccounts, id.Account) &&
			lets(s.cfg.LogTypes, nil, id.LogType) && lets(s.cfg.Regions, s.cfg.ExcludeRegions, id.Region) {
			in = append(in, id)
		}
	}
	return in
}

func lets(only, not []string, x string) bool {
	return (len(only) == 0 || slices.Contains(only, x)) && !slices.Contains(not, x)
}

// errPartial: a level could not be listed, the others could.
type errPartial struct {
	error
	prefix string
}

func (e errPartial) Unwrap() error { return e.error }

// walk is one discovery.
type walk struct {
	source *source

	mu     sync.Mutex
	found  map[progress.Stream]bool
	failed error // of some level, that may go better the next time
}

func (w *walk) run(ctx context.Context) error {
	c := &w.source.cfg
	root := cloudtrail.Root(c.Prefix)
	var tops []progress.Stream // organisation and account so far
	if len(c.Organizations) > 0 && (len(c.Accounts) > 0 || !slices.Contains(c.Organizations, noOrganization)) {
		for _, o := range c.Organizations {
			if o != noOrganization {
				tops = append(tops, progress.Stream{Organization: o})
				continue
			}
			for _, a := range c.Accounts {
				tops = append(tops, progress.Stream{Account: a})
			}
		}
	} else {
		// Both layouts may be in one bucket: accounts as they were before a
		// trail became the organisation's, and the organisation beside them.
		names, err := w.level(ctx, root)
		if err != nil {
			return err
		}
		for _, n := range names {
			switch {
			case cloudtrail.IsOrganization(n) && lets(c.Organizations, nil, n):
				tops = append(tops, progress.Stream{Organization: n})
			case cloudtrail.IsAccount(n) && lets(c.Organizations, nil, noOrganization):
				tops = append(tops, progress.Stream{Account: n})
			}
		}
	}

	var accounts, organizations errgroup.Group // two, so that neither waits for places of the other
	accounts.SetLimit(discoverWorkers)
	organizations.SetLimit(discoverWorkers)
	account := func(t progress.Stream) {
		accounts.Go(func() error {
			w.account(ctx, t)
			return nil
		})
	}
	for _, t := range tops {
		if t.Account != "" {
			account(t)
			continue
		}
		organizations.Go(func() error {
			w.organization(ctx, t, account)
			return nil
		})
	}
	_ = organizations.Wait() // they note their errors in failed
	_ = accounts.Wait()
	return nil
}

func (w *walk) organization(ctx context.Context, t progress.Stream, account func(progress.Stream)) {
	c := &w.source.cfg
	names := c.Accounts
	if len(names) == 0 {
		names = w.below(ctx, cloudtrail.Root(c.Prefix)+t.Organization+"/")
	}
	for _, a := range names {
		if cloudtrail.IsAccount(a) {
			account(progress.Stream{Organization: t.Organization, Account: a})
		}
	}
}

func (w *walk) account(ctx context.Context, t progress.Stream) {
	c := &w.source.cfg
	if !lets(c.Accounts, c.ExcludeAccounts, t.Account) {
		return
	}
	top := cloudtrail.Root(c.Prefix)
	if t.Organization != "" {
		top += t.Organization + "/"
	}
	top += t.Account + "/"
	types := c.LogTypes
	if len(types) == 0 {
		for _, n := range w.below(ctx, top) {
			if slices.Contains(cloudtrail.LogTypes(), n) {
				types = append(types, n)
			}
		}
	}
	for _, lt := range types {
		t.LogType = lt
		regions := c.Regions
		if len(regions) == 0 {
			regions = w.below(ctx, top+lt+"/")
		}
		for _, r := range regions {
			if cloudtrail.IsRegion(r) && !slices.Contains(c.ExcludeRegions, r) {
				t.Region = r
				w.mu.Lock()
				w.found[t] = true
				w.mu.Unlock()
			}
		}
	}
}

// below is level for all but the top: what can't be listed is named, and the
// rest goes on. A level that is denied stays so until the next discovery;
// after other errors this discovery counts as not complete.
func (w *walk) below(ctx context.Context, prefix string) []string {
	what := "discovering " + prefix
	names, err := w.level(ctx, prefix)
	// What passes by itself is not to cost the whole walk.
	for n := 1; n < attempts && err != nil && fault.KindOf(err) == fault.Temporary; n++ {
		if !sleep(ctx, expBackoff(n, firstRetry, maxRetry)) {
			break
		}
		names, err = w.level(ctx, prefix)
	}
	switch {
	case err == nil:
		w.source.trouble.over(what)
	case ctx.Err() != nil:
	default:
		w.source.trouble.met(what, err, "")
		if fault.KindOf(err) == fault.Denied {
			w.source.lacks(what, err)
			break
		}
		w.mu.Lock()
		w.failed = errPartial{err, prefix}
		w.mu.Unlock()
	}
	return names
}

// level returns the names of the folders right under a prefix.
func (w *walk) level(ctx context.Context, prefix string) ([]string, error) {
	s := w.source
	var names []string
	for r := (listing.Request{Prefix: prefix, Delimiter: "/"}); ; {
		if err := s.schedule.wait(ctx); err != nil {
			return names, err
		}
		page, err := s.list(ctx, r)
		if err != nil {
			return names, err
		}
		for _, p := range page.Prefixes {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(p, prefix), "/"))
		}
		if page.Last() || page.Token == r.Token {
			return names, nil
		}
		r.Token = page.Token
	}
}
