package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Commit makes c durable: all of it when it returns nil, none of it when it
// returns ErrBackward or says that the disk is full. After any other error it
// may be either, and committing the same again is harmless. Commits take
// turns; each syncs the disk, so many settlements should share one.
func (s *Store) Commit(c *progress.Changes) error {
	if c.Empty() {
		return nil
	}
	return s.update("writing the checkpoint", func(tx *bolt.Tx) error {
		w := newWriter(s, tx)
		for _, f := range [...]func(*progress.Changes) error{
			w.sources, w.settled, w.partial, w.unpark, w.park, w.heads, w.covered, w.resyncs,
		} {
			if err := f(c); err != nil {
				return err
			}
		}
		return w.finish()
	})
}

// recentFill is how full pages of recent are left when they are split. What a
// lane settles comes nearly in order, so that little is put in between later.
const recentFill = 0.9

// writer applies changes in one write transaction.
type writer struct {
	s      *Store
	tx     *bolt.Tx
	byLane map[progress.Lane]*laneState
	last   *laneState // the lane asked for last: usually asked for again
	key    []byte     // scratch
	days   map[dayKey]uint64
}

// laneState is a lane as the transaction leaves it.
type laneState struct {
	id    uint32
	lane  progress.Lane
	row   row
	dirty bool
}

func newWriter(s *Store, tx *bolt.Tx) *writer {
	return &writer{s: s, tx: tx, byLane: map[progress.Lane]*laneState{}}
}

// find returns a lane, nil if it is not remembered.
func (w *writer) find(l *progress.Lane) (*laneState, error) {
	if w.last != nil && w.last.lane == *l {
		return w.last, nil
	}
	st, ok := w.byLane[*l]
	if !ok {
		id, known := w.s.lane(l)
		if !known {
			// It may stand in the file all the same, from a commit that was
			// done and reported as failed.
			key := appendLane(nil, l)
			v := w.tx.Bucket(bucketLanes).Get(key)
			if v == nil {
				return nil, nil
			}
			v, err := unseal("lanes", key, v)
			if err != nil {
				return nil, err
			}
			id = binary.BigEndian.Uint32(v)
			w.remember(*l, id)
		}
		if l.Resync != 0 && w.tx.Bucket(bucketHeads).Get(laneKey(id)) == nil {
			// Forgotten by a commit that was done and reported as failed.
			return nil, nil
		}
		r, err := readRow(w.tx, id)
		if err != nil {
			return nil, err
		}
		st = &laneState{id: id, lane: *l, row: r}
		w.byLane[*l] = st
	}
	w.last = st
	return st, nil
}

// lane returns a lane, which it makes if it is not remembered.
func (w *writer) lane(l *progress.Lane) (*laneState, error) {
	st, err := w.find(l)
	if st != nil || err != nil {
		return st, err
	}
	lanes := w.tx.Bucket(bucketLanes)
	n, err := lanes.NextSequence()
	if err != nil {
		return nil, err
	}
	st = &laneState{id: uint32(n), lane: *l, dirty: true}
	key := appendLane(nil, l)
	if err := lanes.Put(key, seal(key, laneKey(st.id))); err != nil {
		return nil, fmt.Errorf("writing lane %s: %w", l.Stream, err)
	}
	w.byLane[*l], w.last = st, st
	w.remember(*l, st.id)
	return st, nil
}

// remember adds a lane to the store's memory when the transaction is durable.
func (w *writer) remember(l progress.Lane, id uint32) {
	w.tx.OnCommit(func() {
		w.s.lanesMu.Lock()
		defer w.s.lanesMu.Unlock()
		w.s.ids[l], w.s.lanes[id] = id, l
	})
}

// positionKey returns lane and position as keys hold them, until the next call.
func (w *writer) positionKey(st *laneState, pos string) []byte {
	w.key = binary.BigEndian.AppendUint32(w.key[:0], st.id)
	w.key = appendPosition(w.key, &st.lane.Stream, pos)
	return w.key
}

// parkedKey returns the key of a parked entry, until the next call.
func (w *writer) parkedKey(st *laneState, pos string, record int) []byte {
	w.key = binary.BigEndian.AppendUint32(w.positionKey(st, pos), uint32(int32(record)))
	return w.key
}

func (w *writer) sources(c *progress.Changes) error {
	b := w.tx.Bucket(bucketSources)
	for id, src := range c.Sources {
		key := []byte(id)
		v, err := appendSource(nil, &src)
		if err == nil {
			err = b.Put(key, seal(key, v))
		}
		if err != nil {
			return fmt.Errorf("writing source %q: %w", id, err)
		}
	}
	return nil
}

func (w *writer) settled(c *progress.Changes) error {
	type item struct {
		key []byte
		st  *laneState
	}
	items := make([]item, 0, len(c.Settled))
	keys := make([]byte, 0, 24*len(c.Settled))
	for i := range c.Settled {
		o := &c.Settled[i]
		st, err := w.lane(&o.Lane)
		if err != nil {
			return err
		}
		if err := w.dropPartial(st, o.Position); err != nil {
			return err
		}
		if err := w.dropParked(st, o.Position, progress.WholeObject); err != nil {
			return err
		}
		if o.Position < st.row.head.Pruned {
			continue // counts as settled already
		}
		from := len(keys)
		keys = append(keys, w.positionKey(st, o.Position)...)
		items = append(items, item{keys[from:len(keys):len(keys)], st})
	}
	// In order of their pages, each page is found and split once.
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(a.key, b.key) })
	b := w.tx.Bucket(bucketRecent)
	b.FillPercent = recentFill
	marks := make([]byte, 0, 2*len(items))
	for _, it := range items {
		if b.Get(it.key) != nil {
			continue
		}
		m := mark(it.key)
		marks = append(marks, m[:]...)
		if err := b.Put(it.key, marks[len(marks)-2:]); err != nil {
			return fmt.Errorf("writing a settled object: %w", err)
		}
		it.st.row.recent++
		it.st.dirty = true
		w.countDay(it.st, it.key)
	}
	return nil
}

func (w *writer) partial(c *progress.Changes) error {
	b := w.tx.Bucket(bucketPartial)
	for i := range c.Partial {
		o := &c.Partial[i]
		st, err := w.lane(&o.Lane)
		if err != nil {
			return err
		}
		if len(o.Acked) == 0 {
			if err := w.dropPartial(st, o.Position); err != nil {
				return err
			}
			continue
		}
		if o.Position < st.row.head.Pruned {
			continue
		}
		key := w.positionKey(st, o.Position)
		if b.Get(key) == nil {
			st.row.partial++
			st.dirty = true
		}
		if err := b.Put(key, seal(key, appendString(appendRanges(nil, o.Acked), o.ETag))); err != nil {
			return fmt.Errorf("writing an object in flight: %w", err)
		}
	}
	return nil
}

func (w *writer) unpark(c *progress.Changes) error {
	for i := range c.Unpark {
		e := &c.Unpark[i]
		st, err := w.find(&e.Lane)
		if err == nil && st != nil {
			err = w.dropParked(st, e.Position, e.Record)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) park(c *progress.Changes) error {
	b := w.tx.Bucket(bucketParked)
	for i := range c.Park {
		e := &c.Park[i]
		st, err := w.lane(&e.Lane)
		if err != nil {
			return err
		}
		if e.Record == progress.WholeObject {
			// What was acknowledged of it stands in the entry.
			if err := w.dropPartial(st, e.Position); err != nil {
				return err
			}
		}
		key := w.parkedKey(st, e.Position, e.Record)
		if b.Get(key) == nil {
			st.row.parked++
			st.dirty = true
		}
		if err := b.Put(key, seal(key, appendParked(nil, e))); err != nil {
			return fmt.Errorf("writing a parked entry: %w", err)
		}
	}
	return nil
}

func (w *writer) heads(c *progress.Changes) error {
	for i := range c.Heads {
		h := &c.Heads[i]
		st, err := w.lane(&h.Lane)
		if err != nil {
			return err
		}
		old := &st.row.head
		what := ""
		switch {
		case h.Head.Watermark < old.Watermark:
			what = fmt.Sprintf("watermark %q to %q", old.Watermark, h.Head.Watermark)
		case h.Head.Pruned < old.Pruned:
			what = fmt.Sprintf("prune line %q to %q", old.Pruned, h.Head.Pruned)
		case h.Head.Pruned > h.Head.Watermark:
			what = fmt.Sprintf("prune line %q above watermark %q", h.Head.Pruned, h.Head.Watermark)
		}
		if what != "" {
			return fmt.Errorf("writing the head of %s for %q: %w: %s", h.Lane.Stream, h.Lane.Output, ErrBackward, what)
		}
		// What falls below the prune line counts as settled from here on;
		// Maintain takes it out of the file.
		st.row.head = h.Head
		st.dirty = true
	}
	return nil
}

func (w *writer) dropPartial(st *laneState, pos string) error {
	if st.row.partial == 0 {
		return nil
	}
	return w.drop(bucketPartial, st, &st.row.partial, w.positionKey(st, pos))
}

func (w *writer) dropParked(st *laneState, pos string, record int) error {
	if st.row.parked == 0 {
		return nil
	}
	return w.drop(bucketParked, st, &st.row.parked, w.parkedKey(st, pos, record))
}

func (w *writer) drop(bucket []byte, st *laneState, count *uint64, key []byte) error {
	b := w.tx.Bucket(bucket)
	if b.Get(key) == nil {
		return nil
	}
	*count--
	st.dirty = true
	return b.Delete(key)
}

// finish writes the rows that changed.
func (w *writer) finish() error {
	var dirty []*laneState
	for _, st := range w.byLane {
		if st.dirty {
			dirty = append(dirty, st)
		}
	}
	slices.SortFunc(dirty, func(a, b *laneState) int { return int(int64(a.id) - int64(b.id)) })
	b := w.tx.Bucket(bucketHeads)
	for _, st := range dirty {
		key := laneKey(st.id)
		if err := b.Put(key, seal(key, st.row.append(nil))); err != nil {
			return fmt.Errorf("writing the head of %s: %w", st.lane.Stream, err)
		}
	}
	return w.writeDays()
}

// Forget drops all lanes of an output in a source, and from when the output
// gets the source, so that an output of this name begins anew. owed is how
// many parked entries and objects in flight are dropped with them.
func (s *Store) Forget(id progress.SourceID, output string) (owed int, err error) {
	err = s.update("forgetting an output", func(tx *bolt.Tx) error {
		owed = 0
		changed, err := forgetBegin(tx, id, output)
		if err != nil {
			return err
		}
		lanes := s.laneIDs(func(l *progress.Lane) bool { return l.Source == id && l.Output == output })
		for _, n := range lanes {
			r, err := readRow(tx, n)
			if err != nil {
				return err
			}
			l, _ := s.laneByID(n)
			owed += int(r.parked)
			if r.partial > 0 && l.Resync == 0 {
				err = eachInLane(tx.Bucket(bucketPartial), n, func(k, _ []byte) error {
					pos, err := parsePosition(k[4:], &l.Stream)
					if err != nil {
						return damagef("%v", err)
					}
					if pos >= r.head.Pruned {
						owed++
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			if err := s.forgetLane(tx, n, l); err != nil {
				return err
			}
			changed = true
		}
		if !changed {
			return errUnchanged
		}
		return nil
	})
	if err != nil {
		owed = 0
	}
	return owed, err
}

// forgetLane takes a lane out; Maintain removes what is left of it.
func (s *Store) forgetLane(tx *bolt.Tx, n uint32, l progress.Lane) error {
	key := laneKey(n)
	if err := errors.Join(
		tx.Bucket(bucketLanes).Delete(appendLane(nil, &l)),
		tx.Bucket(bucketHeads).Delete(key),
		tx.Bucket(bucketCovered).Delete(key),
		tx.Bucket(bucketDead).Put(key, seal(key, nil)),
	); err != nil {
		return err
	}
	tx.OnCommit(func() {
		s.lanesMu.Lock()
		defer s.lanesMu.Unlock()
		delete(s.ids, l)
		delete(s.lanes, n)
	})
	return nil
}

// forgetBegin takes an output out of a source, and reports whether it was in.
func forgetBegin(tx *bolt.Tx, id progress.SourceID, output string) (bool, error) {
	src, found, err := readSource(tx, id)
	if err != nil || !found {
		return false, err
	}
	if _, ok := src.Outputs[output]; !ok {
		return false, nil
	}
	delete(src.Outputs, output)
	v, err := appendSource(nil, &src)
	if err != nil {
		return false, err
	}
	key := []byte(id)
	return true, tx.Bucket(bucketSources).Put(key, seal(key, v))
}

// eachInLane calls f with each key of a lane and its value.
func eachInLane(b *bolt.Bucket, id uint32, f func(k, v []byte) error) error {
	prefix := laneKey(id)
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}
