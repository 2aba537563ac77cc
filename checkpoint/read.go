package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Source returns what is remembered of a source, and whether anything is.
func (s *Store) Source(id progress.SourceID) (src progress.Source, found bool, err error) {
	err = s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		src, found, err = readSource(tx, id)
		return err
	})
	return src, found, err
}

func readSource(tx *bolt.Tx, id progress.SourceID) (progress.Source, bool, error) {
	key := []byte(id)
	if len(key) == 0 {
		return progress.Source{}, false, nil
	}
	v := tx.Bucket(bucketSources).Get(key)
	if v == nil {
		return progress.Source{}, false, nil
	}
	v, err := unseal("sources", key, v)
	if err != nil {
		return progress.Source{}, false, err
	}
	src, err := parseSource(v)
	return src, err == nil, err
}

// Heads returns the heads of all lanes of a source and an output that are
// remembered. Empty, never nil, if there are none.
func (s *Store) Heads(id progress.SourceID, output string) (map[progress.Stream]progress.Head, error) {
	heads := map[progress.Stream]progress.Head{}
	err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		lanes := s.laneIDs(func(l *progress.Lane) bool { return l.Source == id && l.Output == output && l.Resync == 0 })
		return s.eachHead(tx, lanes, func(l progress.Lane, h progress.Head) { heads[l.Stream] = h })
	})
	if err != nil {
		return nil, err
	}
	return heads, nil
}

// eachHead calls f with the head of each lane that is still remembered.
func (s *Store) eachHead(tx *bolt.Tx, lanes []uint32, f func(progress.Lane, progress.Head)) error {
	for _, n := range lanes {
		r, found, err := findRow(tx, n)
		if err != nil {
			return err
		}
		if l, ok := s.laneByID(n); ok && found {
			f(l, r.head)
		}
	}
	return nil
}

// findRow is readRow for a lane that may have been forgotten meanwhile.
func findRow(tx *bolt.Tx, id uint32) (row, bool, error) {
	if tx.Bucket(bucketHeads).Get(laneKey(id)) == nil {
		return row{}, false, nil
	}
	r, err := readRow(tx, id)
	return r, err == nil, err
}

// lookup is the scratch memory of one Lookup.
type lookup struct {
	keys   []byte
	items  []lookupItem
	prints []lookupPrint
}

type lookupItem struct {
	key []byte
	n   int // in positions
}

type lookupPrint struct {
	print uint64
	n     int
}

// Lookup returns how the objects at these positions stand in a lane, one State
// for each, all at the same moment. It reuses the memory of into. Positions
// below Head.Pruned are Settled; else an object parked as a whole is Parked,
// whatever else is remembered of it. Positions that ascend, as S3 lists them,
// are looked up fastest.
func (s *Store) Lookup(lane progress.Lane, positions []string, into []progress.State) ([]progress.State, error) {
	out := slices.Grow(into[:0], len(positions))[:len(positions)]
	clear(out)
	id, ok := s.lane(&lane)
	if !ok || len(positions) == 0 {
		return out, nil
	}
	sc := s.scratch.Get().(*lookup)
	err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		clear(out)
		r, found, err := findRow(tx, id)
		if err != nil || !found {
			return err
		}
		sc.collect(id, &lane.Stream, positions, &r, out)
		if r.partial > 0 || r.parked > 0 {
			if err := sc.exceptions(tx, out); err != nil {
				return err
			}
		}
		if err := sc.recent(tx, out); err != nil || r.packed == 0 {
			return err
		}
		return sc.packed(tx, s.hash, id, out)
	})
	if err != nil {
		return nil, err
	}
	s.scratch.Put(sc)
	return out, nil
}

// collect makes the keys of all positions that are not below the prune line.
func (sc *lookup) collect(
	id uint32, stream *progress.Stream, positions []string, r *row, out []progress.State,
) {
	sc.keys, sc.items = sc.keys[:0], sc.items[:0]
	for i, pos := range positions {
		if pos < r.head.Pruned {
			out[i] = progress.State{Standing: progress.Settled, Pruned: true}
			continue
		}
		from := len(sc.keys)
		sc.keys = binary.BigEndian.AppendUint32(sc.keys, id)
		sc.keys = appendPosition(sc.keys, stream, pos)
		// Where keys moves to larger memory, earlier items keep the old.
		sc.items = append(sc.items, lookupItem{sc.keys[from:len(sc.keys):len(sc.keys)], i})
	}
	slices.SortFunc(sc.items, func(a, b lookupItem) int { return bytes.Compare(a.key, b.key) })
}

// exceptions finds what is parked or partly acknowledged. Both are few.
func (sc *lookup) exceptions(tx *bolt.Tx, out []progress.State) error {
	partial, parked := tx.Bucket(bucketPartial), tx.Bucket(bucketParked)
	var key []byte
	for _, it := range sc.items {
		if v := partial.Get(it.key); v != nil {
			v, err := unseal("partial", it.key, v)
			if err != nil {
				return err
			}
			d := decoder{b: v}
			out[it.n] = progress.State{Standing: progress.Partial, Acked: d.ranges(), ETag: d.trailing()}
			if err := d.end("an object in flight"); err != nil {
				return err
			}
		}
		key = append(append(key[:0], it.key...), 0xff, 0xff, 0xff, 0xff)
		if v := parked.Get(key); v != nil {
			if _, err := unseal("parked", key, v); err != nil {
				return err
			}
			out[it.n] = progress.State{Standing: progress.Parked}
		}
	}
	return nil
}

// maxSteps is how many entries the cursor walks over before it searches
// again from the root, which costs about as much.
const maxSteps = 8

// recent finds settled entries, walking along with the sorted keys, and leaves
// in items what it did not find.
func (sc *lookup) recent(tx *bolt.Tx, out []progress.State) error {
	c := tx.Bucket(bucketRecent).Cursor()
	var k, v []byte
	missing := sc.items[:0]
	for i, it := range sc.items {
		if i == 0 {
			k, v = c.Seek(it.key)
		}
		for n := 0; k != nil && bytes.Compare(k, it.key) < 0; n++ {
			if n == maxSteps {
				k, v = c.Seek(it.key)
				break
			}
			k, v = c.Next()
		}
		if !bytes.Equal(k, it.key) {
			missing = append(missing, it)
			continue
		}
		if !marked(k, v) {
			return damagef("a settled entry does not have its mark")
		}
		if out[it.n].Standing != progress.Parked {
			out[it.n] = progress.State{Standing: progress.Settled}
		}
	}
	sc.items = missing
	return nil
}

// packed finds fingerprints, day by day.
func (sc *lookup) packed(tx *bolt.Tx, hash hashKey, id uint32, out []progress.State) error {
	c := tx.Bucket(bucketPacked).Cursor()
	for from := 0; from < len(sc.items); {
		day := binary.BigEndian.Uint16(sc.items[from].key[4:])
		sc.prints = sc.prints[:0]
		for ; from < len(sc.items) && binary.BigEndian.Uint16(sc.items[from].key[4:]) == day; from++ {
			it := sc.items[from]
			sc.prints = append(sc.prints, lookupPrint{hash.sum(it.key[6:]), it.n})
		}
		slices.SortFunc(sc.prints, func(a, b lookupPrint) int { return cmp.Compare(a.print, b.print) })
		if err := sc.packedDay(c, id, day, out); err != nil {
			return err
		}
	}
	return nil
}

func (sc *lookup) packedDay(c *bolt.Cursor, id uint32, day uint16, out []progress.State) error {
	k, v := c.Seek(appendRunKey(nil, id, day, 0))
	steps := 0
	for i := 0; i < len(sc.prints); {
		if !isRunOf(k, id, day) {
			return nil
		}
		// The run that the next fingerprint would stand in is the last one
		// that does not begin after it.
		nextKey, nextValue := c.Next()
		if isRunOf(nextKey, id, day) && runFrom(nextKey) <= sc.prints[i].print {
			if k, v = nextKey, nextValue; steps == maxSteps {
				k, v = seekRun(c, id, day, sc.prints[i].print)
				steps = 0
			}
			steps++
			continue
		}
		steps = 0
		r, err := readRun(k, v)
		if err != nil {
			return err
		}
		at := 0
		for ; i < len(sc.prints); i++ {
			p := sc.prints[i]
			if isRunOf(nextKey, id, day) && runFrom(nextKey) <= p.print {
				break
			}
			var found bool
			if at, found = r.search(at, p.print); found && out[p.n].Standing != progress.Parked {
				out[p.n] = progress.State{Standing: progress.Settled}
			}
		}
		k, v = nextKey, nextValue
	}
	return nil
}

// seekRun finds the last run of a lane and day that does not begin after print.
func seekRun(c *bolt.Cursor, id uint32, day uint16, print uint64) (k, v []byte) {
	k, v = c.Seek(appendRunKey(nil, id, day, print))
	if !isRunOf(k, id, day) || runFrom(k) != print {
		k, v = c.Prev()
	}
	return k, v
}

// parkedBatch is how many entries Parked reads in one transaction.
const parkedBatch = 256

// Parked calls yield with each parked entry until it returns false, in no
// particular order. It holds a few hundred in memory and no lock meanwhile,
// so that yield may use the store; what is parked or unparked by then may be
// seen or not.
func (s *Store) Parked(yield func(progress.Entry) bool) error {
	var next []byte
	for {
		var batch []progress.Entry
		err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketParked).Cursor()
			k, v := c.Seek(next)
			for ; k != nil && len(batch) < parkedBatch; k, v = c.Next() {
				e, ok, err := s.parkedEntry(k, v)
				if err != nil {
					return err
				}
				if ok {
					batch = append(batch, e)
				}
			}
			next = bytes.Clone(k)
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range batch {
			if !yield(e) {
				return nil
			}
		}
		if next == nil {
			return nil
		}
	}
}

// parkedEntry reads an entry; false if its lane is forgotten.
func (s *Store) parkedEntry(k, v []byte) (e progress.Entry, ok bool, err error) {
	if v, err = unseal("parked", k, v); err != nil {
		return e, false, err
	}
	if len(k) < 12 {
		return e, false, damagef("a parked entry without a position")
	}
	if e.Lane, ok = s.laneByID(binary.BigEndian.Uint32(k)); !ok {
		return e, false, nil
	}
	end := len(k) - 4
	e.Record = int(int32(binary.BigEndian.Uint32(k[end:])))
	if e.Position, err = parsePosition(k[4:end], &e.Lane.Stream); err != nil {
		return e, false, damagef("%v", err)
	}
	return e, true, parseParked(v, &e)
}
