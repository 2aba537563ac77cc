package agent

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// SurveyOptions say how closely a source is looked at. The zero value is good.
type SurveyOptions struct {
	// Days is how far back each stream is listed; 0 = 2.
	Days int
	// Pages is how many LISTs a stream is worth; 0 = 10. Of a stream with more,
	// parts are listed that are spread over the days.
	Pages int
	// Streams are those to look at; nil = discover them.
	Streams []progress.Stream
}

// Surveyed is what a survey found.
type Surveyed struct {
	// At is when it began, by S3's clock.
	At time.Time
	// Streams are all streams, in the order of their names.
	Streams []plan.Stream
	// DiscoveryLists is how many LISTs the discovery took; 0 if there was none.
	DiscoveryLists int
	// Lists is how many LISTs the survey took in all.
	Lists int
	// Extrapolated is of how many streams only parts were listed.
	Extrapolated int
	// Failed are the listings that failed. What they would have found is
	// missing.
	Failed []SurveyFailure
}

// SurveyFailure is a prefix that could not be listed.
type SurveyFailure struct {
	Prefix string
	Err    error
}

// Survey looks at a source without an agent: it discovers the streams as the
// agent does, and lists the last days of each for how many objects came, and
// when. It reads no object, remembers nothing, makes each LIST once, and
// honours MaxListsPerMinute. It fails only where nothing at all can be listed,
// or with ctx.
func Survey(ctx context.Context, cfg SourceConfig, o SurveyOptions) (Surveyed, error) {
	v := &survey{store: cfg.Store, days: cmp.Or(o.Days, 2), pages: cmp.Or(o.Pages, 10)}
	cfg.Store = v
	a := &Agent{cfg: Config{Now: time.Now}, mono: time.Now()}
	s := newSource(a, cfg, nil)
	s.log, s.trouble = zerolog.Nop(), newTroubles(zerolog.Nop()) // all is said by what is returned

	ids := o.Streams
	discovery := 0
	switch {
	case ids != nil:
	case s.pinned():
		ids = s.product()
	default:
		w := &walk{source: s, found: make(map[progress.Stream]bool)}
		if err := w.run(ctx); err != nil {
			return Surveyed{}, err
		}
		for id := range w.found {
			ids = append(ids, id)
		}
		discovery = v.lists
	}
	if v.lists == 0 {
		// From here on S3's time is needed; and the bucket may not be there.
		if _, err := s.list(ctx, listing.Request{Prefix: cloudtrail.Root(cfg.Prefix), Limit: 1}); err != nil {
			return Surveyed{}, err
		}
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b progress.Stream) int { return strings.Compare(a.String(), b.String()) })
	if v.at.IsZero() {
		v.at = s.now()
	}

	streams := make([]plan.Stream, len(ids))
	partial := make([]bool, len(ids))
	var work errgroup.Group
	work.SetLimit(listWorkers)
	for i, id := range ids {
		work.Go(func() error {
			streams[i], partial[i] = v.look(ctx, s, id)
			return nil
		})
	}
	_ = work.Wait() // the failures are in v
	if err := ctx.Err(); err != nil {
		return Surveyed{}, err
	}
	found := Surveyed{
		At: v.at, Streams: streams, DiscoveryLists: discovery, Lists: v.lists, Failed: v.failed,
	}
	for _, p := range partial {
		if p {
			found.Extrapolated++
		}
	}
	slices.SortFunc(found.Failed, func(a, b SurveyFailure) int { return strings.Compare(a.Prefix, b.Prefix) })
	return found, nil
}

// survey is one survey under way. It stands in the place of the bucket, and
// notes what is asked of it.
type survey struct {
	store       Bucket
	days, pages int

	mu     sync.Mutex
	at     time.Time // S3's first answer
	lists  int
	failed []SurveyFailure
}

// List implements Bucket.
func (v *survey) List(ctx context.Context, r listing.Request) (listing.Page, error) {
	page, err := v.store.List(ctx, r)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lists++
	switch {
	case err == nil && v.at.IsZero():
		v.at = page.At
	case err != nil && ctx.Err() == nil:
		v.failed = append(v.failed, SurveyFailure{Prefix: r.Prefix, Err: err})
	}
	return page, err
}

// Get implements Bucket; a survey reads nothing.
func (v *survey) Get(ctx context.Context, key, ifMatch string) (listing.Body, error) {
	return v.store.Get(ctx, key, ifMatch)
}

// bunch is how far apart CloudTrail's deliveries to a stream are.
const bunch = 5 * time.Minute

// stretch is what a part of a stream's listing held, by stamp: from inclusive,
// to exclusive.
type stretch struct {
	from, to time.Time
	objects  int
	bytes    int64
	arrivals []time.Time
	next     time.Time // where the listing stopped
	ended    bool      // at the end of the stream
}

// look lists a stream's last days: from their beginning and, if that is more
// than it may, in parts that are spread over the rest. partial tells whether
// it did not list them all.
func (v *survey) look(ctx context.Context, s *source, id progress.Stream) (st plan.Stream, partial bool) {
	st = plan.Stream{ID: id}
	first := max(1, v.pages/2)
	part, ok := v.list(ctx, s, id, v.at.Add(-time.Duration(v.days)*plan.Day), first)
	if !ok {
		return st, false
	}
	parts := []stretch{part}
	begin, more := part.next, v.pages-first
	for n := 0; n < more && !part.ended; n++ {
		partial = true
		at := begin.Add(v.at.Sub(begin) * time.Duration(n) / time.Duration(more))
		if at.Before(part.next) {
			at = part.next
		}
		if part, ok = v.list(ctx, s, id, at, 1); !ok {
			break
		}
		parts = append(parts, part)
	}
	var seen time.Duration
	var objects, bytes float64
	for i := range parts {
		p := &parts[i]
		seen += p.to.Sub(p.from)
		objects += float64(p.objects)
		bytes += float64(p.bytes)
		st.Gaps = append(st.Gaps, p.gaps()...) // sorts the arrivals
		if n := len(p.arrivals); n > 0 && p.arrivals[n-1].After(st.Last) {
			st.Last = p.arrivals[n-1]
		}
	}
	if !part.ended {
		st.Last = time.Time{} // there is more behind
	}
	perDay := float64(plan.Day) / float64(seen)
	st.Objects, st.Bytes = objects*perDay, bytes*perDay
	return st, partial || !part.ended
}

// list lists a stream from a stamp on, at most so many pages of it.
func (v *survey) list(ctx context.Context, s *source, id progress.Stream, from time.Time, pages int) (stretch, bool) {
	type object struct {
		stamp, arrival time.Time
		size           int64
	}
	var all []object
	prefix := cloudtrail.StreamPrefix(s.cfg.Prefix, id)
	p := stretch{from: from, to: v.at, next: v.at}
	r := listing.Request{Prefix: prefix, StartAfter: prefix + cloudtrail.Floor(id, from)}
	for ; pages > 0 && !p.ended; pages-- {
		if s.schedule.wait(ctx) != nil {
			return p, false
		}
		page, err := s.list(ctx, r)
		if err != nil {
			return p, false
		}
		for _, e := range page.Entries {
			r.StartAfter = e.Key
			if stamp, class := cloudtrail.ParsePosition(id, strings.TrimPrefix(e.Key, prefix)); class == cloudtrail.Log {
				all = append(all, object{stamp, arrival(stamp, e.LastModified), e.Size})
			}
		}
		p.ended = page.Last() || len(page.Entries) == 0
	}
	if n := len(all); !p.ended && n > 0 {
		// Objects come in bunches of one stamp, about every five minutes. The
		// last is cut, so it is left out; and a part that ends with a bunch
		// begins with one.
		p.to = all[n-1].stamp
		if all[0].stamp.Sub(from) <= 2*bunch {
			p.from = all[0].stamp
		}
		if p.to.After(p.from) {
			all = slices.DeleteFunc(all, func(o object) bool { return !o.stamp.Before(p.to) })
		} else {
			p.to = p.from.Add(bunch)
		}
		p.next = p.to
	}
	if !p.to.After(p.from) {
		p.to = p.from.Add(time.Minute)
	}
	for _, o := range all {
		p.objects++
		p.bytes += o.size
		p.arrivals = append(p.arrivals, o.arrival)
	}
	return p, true
}

// arrival returns when an object came: when it was last written, unless that
// is so far from its stamp that it was copied or came late.
func arrival(stamp, written time.Time) time.Time {
	if late := written.Sub(stamp); late < -10*time.Minute || late > time.Hour {
		return stamp
	}
	return written
}

// gaps returns the times between arrivals. The stretch is taken for a circle,
// so that they are as long as it is.
func (p *stretch) gaps() []time.Duration {
	if len(p.arrivals) == 0 {
		return []time.Duration{p.to.Sub(p.from)}
	}
	slices.SortFunc(p.arrivals, time.Time.Compare)
	last := p.arrivals[len(p.arrivals)-1]
	edge := max(0, p.arrivals[0].Sub(p.from)) + max(0, p.to.Sub(last))
	gaps := make([]time.Duration, 0, len(p.arrivals))
	if edge > 0 {
		gaps = append(gaps, edge)
	}
	for i, t := range p.arrivals[1:] {
		if g := t.Sub(p.arrivals[i]); g > 0 {
			gaps = append(gaps, g)
		}
	}
	return gaps
}
