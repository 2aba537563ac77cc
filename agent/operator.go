package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Tally counts what is parked. What an operator has skipped is not in it, but
// in Skipped.
type Tally struct {
	Lanes   map[progress.Lane]int
	Sources map[progress.SourceID]int
	Outputs map[string]int
	Reasons map[ParkedGroup]int
	Skipped int
}

// ParkedGroup is what is parked of one source, for one output and reason.
type ParkedGroup struct {
	Source progress.SourceID
	Output string
	Reason record.Reason
}

// NewTally counts what is parked in a checkpoint.
func NewTally(book ParkedBook) (*Tally, error) {
	t := &Tally{
		Lanes: make(map[progress.Lane]int), Sources: make(map[progress.SourceID]int),
		Outputs: make(map[string]int), Reasons: make(map[ParkedGroup]int),
	}
	err := book.Parked(func(e progress.Entry) bool {
		if !e.Skipped.IsZero() {
			t.Skipped++
			return true
		}
		t.Lanes[e.Lane]++
		t.Sources[e.Lane.Source]++
		t.Outputs[e.Lane.Output]++
		t.Reasons[ParkedGroup{e.Lane.Source, e.Lane.Output, e.Reason}]++
		return true
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Total returns how many entries are parked.
func (t *Tally) Total() int {
	n := 0
	for _, c := range t.Sources {
		n += c
	}
	return n
}

// Order is what an operator wants done with parked entries: those that are
// named, or all, or all that are parked for a reason.
type Order struct {
	IDs    []progress.ParkedID
	All    bool
	Reason record.Reason // "" = any

	// Skip sets them aside for good, with a remark that is kept; else they are
	// tried again at once, those named also if they were skipped.
	Skip   bool
	Remark string
}

// Ordered is what became of an order.
type Ordered struct {
	Done []progress.Entry // as they are now
	// Unknown are IDs under which nothing is parked: mistyped, or delivered by now.
	Unknown []progress.ParkedID
	// Busy are being tried at this moment: nothing was done about them.
	Busy []progress.ParkedID
}

// Changes returns what carrying out the order changes in a checkpoint that
// nobody else writes to meanwhile. busy reports whether an entry is being
// tried right now.
func (o *Order) Changes(book ParkedBook, now time.Time, busy func(*progress.Entry) bool) (*progress.Changes, *Ordered, error) {
	found := make(map[progress.ParkedID]bool)
	out := new(Ordered)
	err := book.Parked(func(e progress.Entry) bool {
		id := e.ID()
		named := slices.Contains(o.IDs, id)
		meant := named || e.Skipped.IsZero() && (o.All || o.Reason != "") && (o.Reason == "" || o.Reason == e.Reason)
		if !meant {
			return true
		}
		found[id] = true
		if busy(&e) {
			out.Busy = append(out.Busy, id)
			return true
		}
		if o.Skip {
			e.Skipped, e.Remark, e.NextTry = now, o.Remark, time.Time{}
		} else {
			// Due by the clock of its own bucket, whatever now is by another.
			e.Skipped, e.Remark, e.NextTry = time.Time{}, "", minTime(now, e.FirstSeen)
		}
		out.Done = append(out.Done, e)
		return true
	})
	if err != nil {
		return nil, nil, err
	}
	for _, id := range o.IDs {
		if !found[id] {
			out.Unknown = append(out.Unknown, id)
		}
	}
	return &progress.Changes{Park: out.Done}, out, nil
}

// ErrNoBook: the checkpoint can't list what is parked.
var ErrNoBook = errors.New("the checkpoint does not list what is parked")

// Order carries out an order. When it returns, what was done is durable; what
// is to be tried again is tried as soon as its output takes it.
func (a *Agent) Order(ctx context.Context, o Order) (*Ordered, error) {
	book, ok := a.cfg.Checkpoint.(ParkedBook)
	if !ok {
		return nil, ErrNoBook
	}
	var out *Ordered
	// Made inside of a commit: no entry can change between its being read and
	// its being written. One whose attempt ends with this very commit is busy
	// still.
	err := a.settler.commitMade(ctx, func() (c *progress.Changes, err error) {
		if c, out, err = o.Changes(book, a.sources[0].now(), a.busy); err == nil {
			a.noteOrdered(out.Done)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	for i := range out.Done {
		e := &out.Done[i]
		l := a.cfg.Log.Info().Str("id", string(e.ID())).Str("output", e.Lane.Output).Str("reason", string(e.Reason))
		if o.Skip {
			l.Str("remark", o.Remark).Msg("parked entry is skipped by order")
		} else {
			l.Msg("parked entry is tried again by order")
		}
	}
	if !o.Skip {
		for _, s := range a.sources {
			s.wakeParked()
		}
	}
	return out, nil
}

// noteOrdered remembers what was ordered of entries whose output is held: an
// attempt at one of them that had begun before may still come to an end, and
// would write the entry down as it was.
func (a *Agent) noteOrdered(done []progress.Entry) {
	held := make(map[string]bool)
	for _, d := range a.outputs {
		held[d.cfg.Name] = d.isHeld()
	}
	a.settler.mu.Lock()
	defer a.settler.mu.Unlock()
	for _, e := range done {
		if held[e.Lane.Output] {
			a.settler.ordered[e.ID()] = e
		}
	}
}

// asOrdered puts what an operator has ordered of an entry into e, which the end
// of an attempt writes down that was given up when its output was held.
func (s *settler) asOrdered(t *target, e *progress.Entry) {
	if !t.abandoned {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.ordered[e.ID()]; ok {
		e.Skipped, e.Remark, e.NextTry = o.Skipped, o.Remark, o.NextTry
	}
}

// forgetOrdered lets go of what was ordered while an output was held: no
// attempt is left that began before.
func (s *settler) forgetOrdered(output string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.ordered, func(_ progress.ParkedID, e progress.Entry) bool { return e.Lane.Output == output })
}

// busy reports whether a parked entry is being tried again now.
func (a *Agent) busy(e *progress.Entry) bool {
	for _, s := range a.sources {
		if s.id != e.Lane.Source {
			continue
		}
		if l := s.lane(e.Lane); l != nil {
			l.of.mu.Lock()
			defer l.of.mu.Unlock()
			return l.retrying[e.Position] != nil || l.resyncing[e.Position] != nil
		}
	}
	return false
}

// wakeParked has the source look at once for parked objects that are due.
func (s *source) wakeParked() {
	select {
	case s.parkedDue <- struct{}{}:
	default:
	}
}

// AtRest returns what a checkpoint says of how the sources and outputs of cfg
// do, without an agent: nothing is known of what is on its way, and the time
// is now. Without a checkpoint, nil, nothing is known of any stream.
func AtRest(cfg *Config, parked *Tally, now time.Time) (Status, error) {
	st := Status{Sources: []SourceStatus{}, Streams: []StreamStatus{}, Outputs: []OutputStatus{}}
	for i := range cfg.Outputs {
		o := &cfg.Outputs[i]
		st.Outputs = append(st.Outputs, OutputStatus{
			Name: o.Name, State: StateStopped, Unacknowledged: o.Unacknowledged, Parked: parked.Outputs[o.Name],
		})
	}
	for i := range cfg.Sources {
		c := &cfg.Sources[i]
		src := SourceStatus{
			Name: c.Name, Bucket: c.Bucket, Prefix: c.Prefix, State: StateStopped, Troubles: []Trouble{}, Parked: parked.Sources[c.id()],
		}
		if cfg.Checkpoint == nil {
			st.Sources = append(st.Sources, src)
			continue
		}
		known, _, err := cfg.Checkpoint.Source(c.id())
		if err != nil {
			return st, err
		}
		streams := make(map[progress.Stream]*StreamStatus)
		for i := range cfg.Outputs {
			o := &cfg.Outputs[i]
			if !o.takes(c.Name) {
				continue
			}
			heads, err := cfg.Checkpoint.Heads(c.id(), o.Name)
			if err != nil {
				return st, err
			}
			for id, head := range heads {
				s := streams[id]
				if s == nil {
					d := describe(c, id)
					s = &d
					streams[id] = s
				}
				s.Outputs = append(s.Outputs, restingLane(c, id, o.Name, head, known.Outputs[o.Name], parked, now))
			}
		}
		src.Streams = len(streams)
		for _, s := range streams {
			s.worst()
			st.Streams = append(st.Streams, *s)
		}
		st.Sources = append(st.Sources, src)
	}
	SortStreams(st.Streams)
	return st, nil
}

// restingLane is how a lane does as the checkpoint has it.
func restingLane(
	c *SourceConfig, id progress.Stream, output string, head progress.Head, begin progress.Begin, parked *Tally, now time.Time,
) LaneStatus {
	l := LaneStatus{
		Output: output, Behind: seconds(now.Sub(later(begin.FirstSeen, head.Hourly))),
		Parked: parked.Lanes[progress.Lane{Source: c.id(), Stream: id, Output: output}],
	}
	if head.Watermark == "" || head.Watermark == cloudtrail.Floor(id, begin.Start) {
		return l
	}
	if t, ok := cloudtrail.Instant(head.Watermark); ok {
		l.newest(cloudtrail.StreamPrefix(c.Prefix, id), head.Watermark, t, now)
	}
	return l
}

// ParkedKey returns bucket and whole key of a parked entry.
func ParkedKey(e *progress.Entry) (bucket, key string) {
	bucket, prefix := splitSourceID(e.Lane.Source)
	return bucket, cloudtrail.StreamPrefix(prefix, e.Lane.Stream) + e.Position
}

// splitSourceID returns bucket and prefix of which SourceID has made id.
func splitSourceID(id progress.SourceID) (bucket, prefix string) {
	for i := range len(id) {
		if id[i] == '/' {
			return string(id[:i]), string(id[i+1:])
		}
	}
	return string(id), ""
}

// claimed is a new attempt at the parked entries of one object that is not
// queued yet.
type claimed struct {
	found   *found
	target  *target
	entries []progress.Entry
}

// claim begins a new attempt at the parked entries of one object, unless one
// is under way.
func (s *source) claim(l *lane, position string, entries []progress.Entry) *claimed {
	st := l.of
	stamp, class := cloudtrail.ParsePosition(st.id, position)
	if class != cloudtrail.Log {
		return nil
	}
	f := st.found(listed{listing.Entry{Key: st.prefix + position}, position, stamp})
	st.mu.Lock()
	defer st.mu.Unlock()
	if l.retrying[position] != nil || l.resyncing[position] != nil {
		return nil
	}
	t := &target{found: f, lane: l, class: late, total: -1}
	l.retrying[position] = t
	return &claimed{f, t, entries}
}

// begin queues a claimed attempt at those of its entries that are parked still.
func (c *claimed) begin(still func(progress.ParkedID) bool) {
	t, st := c.target, c.found.stream
	entries := slices.DeleteFunc(c.entries, func(e progress.Entry) bool { return !still(e.ID()) })
	st.mu.Lock()
	if t.lane.retrying[t.position] != t { // its output was held meanwhile
		st.mu.Unlock()
		return
	}
	if len(entries) == 0 {
		delete(t.lane.retrying, t.position)
		st.mu.Unlock()
		return
	}
	t.retry = entries
	if i := t.retried(progress.WholeObject); i >= 0 {
		t.acked, t.etag = entries[i].Acked.Clone(), entries[i].ETag
		// What was parked by itself counts as settled there, because it has an
		// entry of its own. This attempt ends that one, and so has to send it.
		for _, e := range entries {
			t.acked = t.acked.Remove(e.Record)
		}
	} else {
		for _, e := range entries {
			t.only = t.only.Add(e.Record, e.Record+1)
			t.etag = e.ETag
		}
	}
	st.mu.Unlock()
	st.source.queue.put(&job{found: c.found, class: late, targets: []*target{t}})
}
