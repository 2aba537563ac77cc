package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// ResyncOrder is what an operator asks for: the window [From, To) of stamps,
// gone over again in all lanes that it names. What is empty means all.
type ResyncOrder struct {
	From, To                    time.Time
	Sources, Outputs            []string // names
	Accounts, Regions, LogTypes []string
	Resend                      bool // send all, not only what is missing
}

// ResyncStatus is a re-sync with how far it is.
type ResyncStatus struct {
	progress.Resync
	// SourceNames are its sources as they are configured; one that is
	// configured no longer is named by its bucket and prefix.
	SourceNames []string
	// Lanes is how many lanes it is for, LanesDone how many are complete.
	Lanes, LanesDone int
	// Share is how much of its windows it has gone over, 0 to 1.
	Share float64
	// Day is the earliest day that is being worked at; zero if none is.
	Day time.Time
	// Rate is how many objects, settled ones included, it goes over in a
	// second; Left is how long it will take at that. Zero if not known.
	Rate float64
	Left time.Duration
	// Held are outputs that it waits for.
	Held []string
	// LeftOut are sources and outputs that it can't be for, because they are
	// not configured or switched off.
	LeftOut []string
}

// ErrNoResync: there is no re-sync of that id.
var ErrNoResync = errors.New("there is no such re-sync")

// keptResyncs is how many re-syncs that are over are remembered for the list.
const keptResyncs = 50

// resyncs are all re-syncs that are remembered, over or not.
type resyncs struct {
	agent *Agent
	book  ResyncBook // nil: the checkpoint keeps none

	ordering sync.Mutex // one order or cancellation at a time
	mu       sync.Mutex // guards loaded, running, all
	loaded   bool
	running  bool // Run is at work: its settler commits
	all      []*resync
}

// resync is one re-sync.
type resync struct {
	order progress.Resync // State, times and Count aside, never changed
	over  atomic.Bool     // done, or cancelled: nothing of it is written any more but that
	count struct{ objects, passed, records, bytes atomic.Int64 }

	ending  sync.Mutex        // one end at a time; guards unended
	unended *progress.Changes // it is over, and this is still to be written down; else nil

	mu    sync.Mutex // guards what follows; taken last
	state progress.ResyncState
	began time.Time
	ended time.Time
	heads map[progress.Lane]progress.Head // as the checkpoint had them
	pace  pace
}

// pace is how fast a re-sync goes, since this process took it up.
type pace struct {
	since          time.Time // monotonic
	objects, share float64
}

func newResyncs(a *Agent) *resyncs {
	book, _ := a.cfg.Checkpoint.(ResyncBook)
	return &resyncs{agent: a, book: book}
}

func newResync(r progress.Resync) *resync {
	x := &resync{order: r, state: r.State, began: r.Began, ended: r.Ended}
	x.over.Store(r.Over())
	x.count.objects.Store(r.Count.Objects)
	x.count.passed.Store(r.Count.Passed)
	x.count.records.Store(r.Count.Records)
	x.count.bytes.Store(r.Count.Bytes)
	return x
}

// snapshot returns the re-sync as it is to be remembered now.
func (x *resync) snapshot() progress.Resync {
	r := x.order
	r.Count = progress.ResyncCount{
		Objects: x.count.objects.Load(), Passed: x.count.passed.Load(),
		Records: x.count.records.Load(), Bytes: x.count.bytes.Load(),
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r.State, r.Began, r.Ended = x.state, x.began, x.ended
	return r
}

// load reads what the checkpoint remembers, once.
func (r *resyncs) load() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded || r.book == nil {
		return nil
	}
	all, err := r.book.Resyncs()
	if err != nil {
		return err
	}
	for _, o := range all {
		x := newResync(o)
		if !o.Over() {
			if x.heads, err = r.book.ResyncHeads(o.ID); err != nil {
				return err
			}
		}
		r.all = append(r.all, x)
	}
	r.loaded = true
	return nil
}

// run says whether Run is at work.
func (r *resyncs) run(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = is
}

func (r *resyncs) isRunning() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}

// list returns all re-syncs, ascending by id.
func (r *resyncs) list() []*resync {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// open returns the re-syncs of a source that are not over, up to the one that
// the agent runs for, if it runs for one only.
func (r *resyncs) open(id progress.SourceID) []*resync {
	only := r.agent.cfg.Only
	var open []*resync
	for _, x := range r.list() {
		if !x.over.Load() && slices.Contains(x.order.Sources, id) && (only == 0 || x.order.ID <= only) {
			open = append(open, x)
		}
	}
	return open
}

func (r *resyncs) find(id progress.ResyncID) *resync {
	for _, x := range r.list() {
		if x.order.ID == id {
			return x
		}
	}
	return nil
}

// ending reports whether the end of a re-sync is still to be written down.
func (r *resyncs) ending() bool {
	return slices.ContainsFunc(r.list(), func(x *resync) bool { return x.over.Load() && !x.isEnded() })
}

// isEnded reports whether the re-sync is over, and that is durable.
func (x *resync) isEnded() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return (&progress.Resync{State: x.state}).Over()
}

// commit makes changes durable, by the settler if it is at work.
func (r *resyncs) commit(ctx context.Context, c *progress.Changes) error {
	if r.isRunning() {
		return r.agent.settler.commitNow(ctx, c)
	}
	return r.agent.cfg.Checkpoint.Commit(c)
}

// Resync takes an order: it is durable when this returns, and worked at by the
// agent that runs now, or next. It may be called whether Run is at work or not;
// if it is not, streams that were never discovered are discovered first. The
// errors say what there is instead of what was asked for.
func (a *Agent) Resync(ctx context.Context, o ResyncOrder) (ResyncStatus, error) {
	r := a.resyncs
	r.ordering.Lock()
	defer r.ordering.Unlock()
	order, err := a.resolve(ctx, o, true)
	if err != nil {
		return ResyncStatus{}, err
	}
	changes := progress.Changes{}
	var over []*resync
	for _, x := range r.list() {
		order.ID = max(order.ID, x.order.ID)
		if x.over.Load() {
			over = append(over, x)
		}
	}
	order.ID++
	order.State, order.Created = progress.ResyncQueued, a.cfg.Now().UTC().Truncate(time.Second)
	if n := len(over) - keptResyncs; n > 0 {
		over = over[:n]
		for _, x := range over {
			changes.ForgetResyncs = append(changes.ForgetResyncs, x.order.ID)
		}
	} else {
		over = nil
	}
	changes.Resyncs = []progress.Resync{order}
	// A crash before this commit: nothing was ordered, and nobody was told so.
	if err := r.commit(ctx, &changes); err != nil {
		return ResyncStatus{}, fmt.Errorf("writing down the re-sync: %w", err)
	}
	x := newResync(order)
	r.mu.Lock()
	r.all = append(slices.DeleteFunc(slices.Clone(r.all), func(x *resync) bool { return slices.Contains(over, x) }), x)
	r.mu.Unlock()
	a.cfg.Log.Info().Stringer("resync", order.ID).Time("from", order.From).Time("to", order.To).Bool("resend", order.Resend).
		Msg("re-sync is ordered")
	a.nudgeResyncs()
	return a.resyncStatus(x), nil
}

func (a *Agent) nudgeResyncs() {
	for _, s := range a.sources {
		s.resyncer.nudge()
	}
}

// CancelResync ends a re-sync. What it has sent stays sent, and is remembered
// by whole days. Of one that is over already it changes nothing. After an error
// that the end could not be written down the re-sync sends no more in this
// process, and goes on in the next one unless it is cancelled again.
func (a *Agent) CancelResync(ctx context.Context, id progress.ResyncID) (ResyncStatus, error) {
	r := a.resyncs
	r.ordering.Lock()
	defer r.ordering.Unlock()
	if err := a.resyncs.load(); err != nil {
		return ResyncStatus{}, err
	}
	x := r.find(id)
	if x == nil {
		return ResyncStatus{}, fmt.Errorf("re-sync %v: %w", id, ErrNoResync)
	}
	if err := a.endResync(ctx, x, progress.ResyncCancelled); err != nil {
		return ResyncStatus{}, fmt.Errorf("cancelling re-sync %v: %w", id, err)
	}
	return a.resyncStatus(x), nil
}

// endResync ends a re-sync that is not over. What failed to be written down of
// an end before is written down instead, whichever end that was.
func (a *Agent) endResync(ctx context.Context, x *resync, how progress.ResyncState) error {
	x.ending.Lock()
	defer x.ending.Unlock()
	if !x.over.Swap(true) {
		changes := &progress.Changes{}
		if how == progress.ResyncCancelled {
			for _, s := range a.sources {
				changes.Covered = append(changes.Covered, s.resyncer.abandon(x)...)
			}
		}
		r := x.snapshot()
		r.State, r.Ended = how, a.cfg.Now().UTC().Truncate(time.Second)
		changes.Resyncs = []progress.Resync{r}
		x.unended = changes
	}
	if x.unended == nil {
		return nil
	}
	// A crash before this commit: the re-sync goes on where it was, and is to be
	// cancelled again, or found to be done. After an error it may be written
	// down or not; doing so twice makes no difference.
	if err := a.resyncs.commit(ctx, x.unended); err != nil {
		return err
	}
	how = x.unended.Resyncs[0].State
	c := x.unended.Resyncs[0].Count
	x.mu.Lock()
	x.state, x.ended = how, x.unended.Resyncs[0].Ended
	x.mu.Unlock()
	x.unended = nil
	a.cfg.Log.Info().Stringer("resync", x.order.ID).Str("state", string(how)).Int64("objects", c.Objects).
		Int64("records", c.Records).Int64("passed", c.Passed).Msg("re-sync ends")
	a.nudgeResyncs()
	a.progressed()
	return nil
}

// Resyncs returns all re-syncs that are remembered, ascending by id. Without
// Run at work they are as the checkpoint has them.
func (a *Agent) Resyncs() ([]ResyncStatus, error) {
	if err := a.resyncs.load(); err != nil {
		return nil, err
	}
	var all []ResyncStatus
	for _, x := range a.resyncs.list() {
		all = append(all, a.resyncStatus(x))
	}
	return all, nil
}

// resyncStatus says how far a re-sync is.
func (a *Agent) resyncStatus(x *resync) ResyncStatus {
	s := ResyncStatus{Resync: x.snapshot()}
	for _, id := range x.order.Sources {
		name := string(id)
		for _, src := range a.sources {
			if src.id == id {
				name = src.cfg.Name
			}
		}
		s.SourceNames = append(s.SourceNames, name)
	}
	s.LeftOut = a.leftOut(&x.order)
	if s.Over() {
		if s.State == progress.ResyncDone {
			s.Share = 1
		}
		return s
	}
	held := make(map[string]bool)
	total := 0.0
	for _, src := range a.sources {
		for _, l := range src.resyncer.lanes(&x.order) {
			s.Lanes++
			share, day, done := src.resyncer.how(x, l)
			total += share
			switch {
			case done:
				s.LanesDone++
			case l.out.isHeld():
				held[l.out.cfg.Name] = true
			case !day.IsZero() && (s.Day.IsZero() || day.Before(s.Day)):
				s.Day = day
			}
		}
	}
	if s.Lanes > 0 {
		s.Share = total / float64(s.Lanes)
	}
	s.Held = slices.Sorted(maps.Keys(held))
	x.mu.Lock()
	p := x.pace
	x.mu.Unlock()
	if took := time.Since(p.since).Seconds(); !p.since.IsZero() && took > 0 {
		s.Rate = (float64(s.Count.Objects+s.Count.Passed) - p.objects) / took
		if gone := s.Share - p.share; gone > 0 {
			s.Left = time.Duration(took * (1 - s.Share) / gone * float64(time.Second))
		}
	}
	return s
}

// leftOut returns what a re-sync is for and can't be worked at.
func (a *Agent) leftOut(o *progress.Resync) []string {
	var out []string
	for _, id := range o.Sources {
		if !slices.ContainsFunc(a.sources, func(s *source) bool { return s.id == id }) {
			out = append(out, "source "+string(id))
		}
	}
	for _, name := range o.Outputs {
		if !slices.ContainsFunc(a.outputs, func(d *delivery) bool { return d.cfg.Name == name }) {
			out = append(out, "output "+name)
		}
	}
	return out
}

// resolve makes an order for what is configured and has been discovered; keep
// tells whether what is discovered now is to be remembered.
func (a *Agent) resolve(ctx context.Context, o ResyncOrder, keep bool) (progress.Resync, error) {
	none := progress.Resync{}
	if a.resyncs.book == nil {
		return none, errors.New("the checkpoint keeps no re-syncs")
	}
	if err := a.resyncs.load(); err != nil {
		return none, err
	}
	from, to := o.From.UTC(), o.To.UTC()
	switch now := a.cfg.Now().UTC(); {
	case !from.Before(to):
		return none, refuse("the window is upside down: it begins at %s and ends at %s", "its beginning comes first, and its end is not part of it",
			from.Format(time.RFC3339), to.Format(time.RFC3339))
	case to.After(now):
		return none, refuse("the window ends in the future, at %s: it is %s now", "end it by now at the latest; what comes later is delivered anyway",
			to.Format(time.RFC3339), now.Format(time.RFC3339))
	case from.Year() < 1980:
		return none, refuse("the window begins in the year %d", "CloudTrail's logs begin in 2013", from.Year())
	}
	r := progress.Resync{From: from, To: to, Accounts: o.Accounts, Regions: o.Regions, LogTypes: o.LogTypes, Resend: o.Resend}
	sources, err := pick(a.sources, o.Sources, "source", func(s *source) string { return s.cfg.Name })
	if err != nil {
		return none, err
	}
	outputs, err := pick(a.outputs, o.Outputs, "output", func(d *delivery) string { return d.cfg.Name })
	if err != nil {
		return none, err
	}
	var streams []progress.Stream
	for _, s := range sources {
		if !slices.ContainsFunc(outputs, func(d *delivery) bool { return slices.Contains(s.outputs, d) }) {
			continue
		}
		r.Sources = append(r.Sources, s.id)
		known, err := s.resyncer.streams(ctx, keep, func(known []progress.Stream) bool { return o.fits(known) == nil })
		if err != nil {
			return none, fmt.Errorf("source %s: %w", s.cfg.Name, err)
		}
		streams = append(streams, known...)
	}
	for _, d := range outputs {
		if slices.ContainsFunc(sources, func(s *source) bool { return slices.Contains(s.outputs, d) }) {
			r.Outputs = append(r.Outputs, d.cfg.Name)
		}
	}
	if len(r.Sources) == 0 {
		return none, refuse("none of these outputs takes any of these sources", "compare with the outputs' sources in the configuration")
	}
	return r, o.fits(streams)
}

// pick returns those of all that are named, or all.
func pick[T any](all []T, names []string, what string, name func(T) string) ([]T, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []T
	var there []string
	for _, x := range all {
		there = append(there, name(x))
		if slices.Contains(names, name(x)) {
			picked = append(picked, x)
		}
	}
	for _, n := range names {
		if !slices.Contains(there, n) {
			return nil, refuse("there is no %s %q that is configured and enabled", "there is "+some(there), what, n)
		}
	}
	return picked, nil
}

// fits reports whether there are streams that the order is for.
func (o *ResyncOrder) fits(streams []progress.Stream) error {
	for _, of := range []struct {
		what  string
		names []string
		get   func(progress.Stream) string
	}{
		{"account", o.Accounts, func(s progress.Stream) string { return s.Account }},
		{"region", o.Regions, func(s progress.Stream) string { return s.Region }},
		{"log type", o.LogTypes, func(s progress.Stream) string { return s.LogType }},
	} {
		there := make(map[string]bool)
		for _, s := range streams {
			there[of.get(s)] = true
		}
		for _, n := range of.names {
			if !there[n] {
				return refuse("there is no %s %q in these sources", "there is "+some(slices.Collect(maps.Keys(there))), of.what, n)
			}
		}
	}
	all := func(in []string, x string) bool { return len(in) == 0 || slices.Contains(in, x) }
	for _, s := range streams {
		if all(o.Accounts, s.Account) && all(o.Regions, s.Region) && all(o.LogTypes, s.LogType) {
			return nil
		}
	}
	if len(streams) == 0 {
		return refuse("these sources have no streams", "trailpoll check says whether their buckets can be listed")
	}
	return refuse("no stream has such an account, region and log type together", "trailpoll status shows the streams there are")
}

// some names up to twenty of what there is.
func some(names []string) string {
	const most = 20
	slices.Sort(names)
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ") + more
}

// refuse makes the error of an order that can't be.
func refuse(what, hint string, args ...any) error {
	return &fault.Error{Kind: fault.Misconfigured, Op: "ordering a re-sync", Err: fmt.Errorf(what, args...), Hint: hint}
}
