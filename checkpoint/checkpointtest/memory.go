package checkpointtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Fault is what goes wrong with a call.
type Fault int

const (
	// None: nothing goes wrong.
	None Fault = iota
	// Lost: the call fails and nothing was done.
	Lost
	// AnswerLost: what was asked for is done, and the call fails all the same.
	AnswerLost
)

// ErrInjected is the error of a call that Memory was told to fail.
var ErrInjected = errors.New("injected failure")

// ErrBackward is the error of a Commit that would move progress back.
var ErrBackward = errors.New("progress would go back")

// Memory is a store that keeps everything in plain maps: the model that
// durable stores are compared with, and the fake for tests of the agent. It
// may be used from any goroutine.
type Memory struct {
	mu      sync.Mutex
	fault   func(call string) Fault
	rebuilt bool
	sources map[progress.SourceID]progress.Source
	lanes   map[progress.Lane]*memoryLane
	resyncs map[progress.ResyncID]progress.Resync
}

type memoryLane struct {
	covered []progress.Covered
	head    progress.Head
	settled map[string]bool
	partial map[string]progress.State
	parked  map[parkedKey]progress.Entry
	days    map[string]int64
}

type parkedKey struct {
	position string
	record   int
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		sources: map[progress.SourceID]progress.Source{},
		lanes:   map[progress.Lane]*memoryLane{},
		resyncs: map[progress.ResyncID]progress.Resync{},
	}
}

// Inject makes f decide on every later call, by the method's name, what goes
// wrong with it. f is called with the store locked: it must not use it. nil
// takes it away.
func (m *Memory) Inject(f func(call string) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// SetRebuilt sets what Rebuilt returns.
func (m *Memory) SetRebuilt(v bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rebuilt = v
}

// Clone returns a store of its own that holds the same: what an agent finds
// that was killed now and started again. It injects nothing.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory()
	c.rebuilt = m.rebuilt
	for id, s := range m.sources {
		c.sources[id] = cloneSource(s)
	}
	for l, x := range m.lanes {
		y := &memoryLane{slices.Clone(x.covered), x.head, maps.Clone(x.settled), maps.Clone(x.partial), maps.Clone(x.parked), maps.Clone(x.days)}
		c.lanes[l] = y
	}
	maps.Copy(c.resyncs, m.resyncs)
	return c
}

// call runs f, unless it is to fail before or after.
func (m *Memory) call(name string, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fault := None
	if m.fault != nil {
		fault = m.fault(name)
	}
	if fault == Lost {
		return fmt.Errorf("%s: %w", name, ErrInjected)
	}
	if err := f(); err != nil {
		return err
	}
	if fault == AnswerLost {
		return fmt.Errorf("%s: %w after it was done", name, ErrInjected)
	}
	return nil
}

// Source returns what is remembered of a source, and whether anything is.
func (m *Memory) Source(id progress.SourceID) (src progress.Source, found bool, err error) {
	err = m.call("Source", func() error {
		src, found = m.sources[id]
		src = cloneSource(src)
		return nil
	})
	if err != nil {
		return progress.Source{}, false, err
	}
	return src, found, nil
}

// Heads returns the heads of all lanes of a source and an output.
func (m *Memory) Heads(id progress.SourceID, output string) (map[progress.Stream]progress.Head, error) {
	heads := map[progress.Stream]progress.Head{}
	err := m.call("Heads", func() error {
		for l, x := range m.lanes {
			if l.Source == id && l.Output == output && l.Resync == 0 {
				heads[l.Stream] = x.head
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return heads, nil
}

// Resyncs returns all re-syncs, ascending by id.
func (m *Memory) Resyncs() (all []progress.Resync, err error) {
	err = m.call("Resyncs", func() error {
		for _, id := range slices.Sorted(maps.Keys(m.resyncs)) {
			all = append(all, cloneResync(m.resyncs[id]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// ResyncHeads returns the heads of all lanes of a re-sync.
func (m *Memory) ResyncHeads(id progress.ResyncID) (map[progress.Lane]progress.Head, error) {
	heads := map[progress.Lane]progress.Head{}
	err := m.call("ResyncHeads", func() error {
		for l, x := range m.lanes {
			if id != 0 && l.Resync == id {
				heads[l] = x.head
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return heads, nil
}

// Covered returns the windows of a lane that re-syncs have gone over.
func (m *Memory) Covered(l progress.Lane) (windows []progress.Covered, err error) {
	err = m.call("Covered", func() error {
		if x := m.lanes[l]; x != nil {
			windows = slices.Clone(x.covered)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return windows, nil
}

// Days returns how many objects of each day were settled.
func (m *Memory) Days(id progress.SourceID, output string, from time.Time) (map[progress.Stream]map[string]int64, error) {
	all := map[progress.Stream]map[string]int64{}
	err := m.call("Days", func() error {
		first := from.UTC().Format(time.DateOnly)
		for l, x := range m.lanes {
			if l.Source != id || l.Output != output || l.Resync != 0 {
				continue
			}
			for day, n := range x.days {
				if day < first {
					continue
				}
				if all[l.Stream] == nil {
					all[l.Stream] = map[string]int64{}
				}
				all[l.Stream][day] = n
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// folderDay returns the date of a position's folder, YYYY-MM-DD.
func folderDay(pos string) (string, bool) {
	if len(pos) < 11 || pos[10] != '/' {
		return "", false
	}
	t, err := time.Parse("2006/01/02", pos[:10])
	return t.Format(time.DateOnly), err == nil
}

func cloneResync(r progress.Resync) progress.Resync {
	for _, s := range []*[]string{&r.Outputs, &r.Accounts, &r.Regions, &r.LogTypes} {
		*s = slices.Clone(*s)
	}
	r.Sources = slices.Clone(r.Sources)
	return r
}

// Lookup returns how the objects at these positions stand in a lane.
func (m *Memory) Lookup(lane progress.Lane, positions []string, into []progress.State) ([]progress.State, error) {
	into = into[:0]
	err := m.call("Lookup", func() error {
		x := m.lanes[lane]
		for _, pos := range positions {
			into = append(into, x.state(pos))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return into, nil
}

func (x *memoryLane) state(pos string) progress.State {
	if x == nil {
		return progress.State{}
	}
	if pos < x.head.Pruned {
		return progress.State{Standing: progress.Settled, Pruned: true}
	}
	if _, ok := x.parked[parkedKey{pos, progress.WholeObject}]; ok {
		return progress.State{Standing: progress.Parked}
	}
	if x.settled[pos] {
		return progress.State{Standing: progress.Settled}
	}
	if s, ok := x.partial[pos]; ok {
		s.Acked = s.Acked.Clone()
		return s
	}
	return progress.State{}
}

// Parked calls yield with each parked entry until it returns false.
func (m *Memory) Parked(yield func(progress.Entry) bool) error {
	var all []progress.Entry
	err := m.call("Parked", func() error {
		for _, x := range m.lanes {
			for _, e := range x.parked {
				e.Acked = e.Acked.Clone()
				all = append(all, e)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range all {
		if !yield(e) {
			return nil
		}
	}
	return nil
}

// Commit applies all of c or, if it returns ErrBackward, none of it.
func (m *Memory) Commit(c *progress.Changes) error {
	return m.call("Commit", func() error {
		heads := map[progress.Lane]progress.Head{}
		for _, h := range c.Heads {
			old, ok := heads[h.Lane]
			if x := m.lanes[h.Lane]; !ok && x != nil {
				old = x.head
			}
			if h.Head.Watermark < old.Watermark || h.Head.Pruned < old.Pruned || h.Head.Pruned > h.Head.Watermark {
				return fmt.Errorf("writing the head of %s: %w", h.Lane.Stream, ErrBackward)
			}
			heads[h.Lane] = h.Head
		}
		for id, s := range c.Sources {
			m.sources[id] = cloneSource(s)
		}
		for _, o := range c.Settled {
			x := m.lane(o.Lane)
			if day, ok := folderDay(o.Position); ok && !x.settled[o.Position] && o.Position >= x.head.Pruned && o.Lane.Resync == 0 {
				x.days[day]++
			}
			x.settled[o.Position] = true
			delete(x.partial, o.Position)
			delete(x.parked, parkedKey{o.Position, progress.WholeObject})
		}
		for _, o := range c.Partial {
			x := m.lane(o.Lane)
			x.partial[o.Position] = progress.State{Standing: progress.Partial, Acked: o.Acked.Clone(), ETag: o.ETag}
			if len(o.Acked) == 0 {
				delete(x.partial, o.Position)
			}
		}
		for _, e := range c.Unpark {
			if x := m.lanes[e.Lane]; x != nil {
				delete(x.parked, parkedKey{e.Position, e.Record})
			}
		}
		for _, e := range c.Park {
			x := m.lane(e.Lane)
			e.Acked = e.Acked.Clone()
			x.parked[parkedKey{e.Position, e.Record}] = e
			if e.Record == progress.WholeObject {
				delete(x.partial, e.Position)
			}
		}
		for l, h := range heads {
			m.lane(l).setHead(h)
		}
		for _, w := range c.Covered {
			m.lane(w.Lane).covered = slices.Clone(w.Windows)
		}
		forget := func(id progress.ResyncID) {
			maps.DeleteFunc(m.lanes, func(l progress.Lane, _ *memoryLane) bool { return l.Resync == id })
		}
		for _, r := range c.Resyncs {
			m.resyncs[r.ID] = cloneResync(r)
			if r.Over() {
				forget(r.ID)
			}
		}
		for _, id := range c.ForgetResyncs {
			delete(m.resyncs, id)
			forget(id)
		}
		return nil
	})
}

func (m *Memory) lane(l progress.Lane) *memoryLane {
	x := m.lanes[l]
	if x == nil {
		x = &memoryLane{
			settled: map[string]bool{},
			partial: map[string]progress.State{},
			parked:  map[parkedKey]progress.Entry{},
			days:    map[string]int64{},
		}
		m.lanes[l] = x
	}
	return x
}

func (x *memoryLane) setHead(h progress.Head) {
	x.head = h
	below := func(pos string) bool { return pos < h.Pruned }
	maps.DeleteFunc(x.settled, func(pos string, _ bool) bool { return below(pos) })
	maps.DeleteFunc(x.partial, func(pos string, _ progress.State) bool { return below(pos) })
}

// Forget drops all lanes of an output in a source, and its Begin.
func (m *Memory) Forget(id progress.SourceID, output string) (owed int, err error) {
	err = m.call("Forget", func() error {
		if s, ok := m.sources[id]; ok {
			s = cloneSource(s)
			delete(s.Outputs, output)
			m.sources[id] = s
		}
		for l, x := range m.lanes {
			if l.Source == id && l.Output == output {
				owed += len(x.parked)
				for pos := range x.partial {
					if pos >= x.head.Pruned && l.Resync == 0 {
						owed++
					}
				}
				delete(m.lanes, l)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return owed, nil
}

// Maintain does nothing but fail when it is told to.
func (m *Memory) Maintain(ctx context.Context, _ time.Time) error {
	return m.call("Maintain", ctx.Err)
}

// Rebuilt returns what SetRebuilt set, until ClearRebuilt.
func (m *Memory) Rebuilt() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rebuilt
}

// ClearRebuilt makes Rebuilt return false.
func (m *Memory) ClearRebuilt() error {
	return m.call("ClearRebuilt", func() error {
		m.rebuilt = false
		return nil
	})
}

// Close does nothing but fail when it is told to: Clone is how to open again.
func (m *Memory) Close() error { return m.call("Close", func() error { return nil }) }

func cloneSource(s progress.Source) progress.Source {
	s.Streams = append([]progress.Stream(nil), s.Streams...)
	s.Outputs = maps.Clone(s.Outputs)
	return s
}
