package checkpoint

import (
	"encoding/binary"
	"slices"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// A run is some of the fingerprints of one lane and day, ascending. A run is
// short, so that several fit into a page: values of many pages would leave
// holes between free pages that nothing fits into, and the file would grow to
// twice its size.
type run struct{ b []byte }

const (
	runKeyLen = 4 + 2 + 8
	runMax    = 120 // fingerprints, about 1 KiB
	runFill   = 0.9 // of a page: most days are written once and only read later
	runCut    = 90  // how many are left in each, at most, when a run is cut
)

func (r run) len() int        { return len(r.b) / 8 }
func (r run) at(i int) uint64 { return binary.LittleEndian.Uint64(r.b[8*i:]) }

// search returns where print stands or would stand, looking from i on.
func (r run) search(i int, print uint64) (int, bool) {
	i += sort.Search(r.len()-i, func(j int) bool { return r.at(i+j) >= print })
	return i, i < r.len() && r.at(i) == print
}

// readRun checks and returns a run, which is valid as long as value is.
func readRun(key, value []byte) (run, error) {
	b, err := unseal("packed", key, value)
	if err != nil {
		return run{}, err
	}
	if len(b) == 0 || len(b)%8 != 0 {
		return run{}, damagef("a run of %d bytes", len(b))
	}
	return run{b}, nil
}

func appendRunKey(dst []byte, lane uint32, day uint16, from uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, lane)
	dst = binary.BigEndian.AppendUint16(dst, day)
	return binary.BigEndian.AppendUint64(dst, from)
}

func isRunOf(key []byte, lane uint32, day uint16) bool {
	return len(key) == runKeyLen && binary.BigEndian.Uint32(key) == lane && binary.BigEndian.Uint16(key[4:]) == day
}

func runFrom(key []byte) uint64 { return binary.BigEndian.Uint64(key[6:]) }

// mergeRuns adds prints, ascending and each once, to the runs of a lane and
// day, and returns how many of them were new.
func mergeRuns(b *bolt.Bucket, lane uint32, day uint16, prints []uint64) (added int, err error) {
	// Which runs there are, by where they begin. Writing comes after, because
	// a cursor does not survive it.
	b.FillPercent = runFill
	var froms []uint64
	c := b.Cursor()
	for k, _ := c.Seek(appendRunKey(nil, lane, day, 0)); isRunOf(k, lane, day); k, _ = c.Next() {
		froms = append(froms, runFrom(k))
	}
	if len(froms) == 0 {
		froms = []uint64{0}
	}
	for i, from := range froms {
		n := len(prints)
		if i+1 < len(froms) {
			n, _ = slices.BinarySearch(prints, froms[i+1])
		}
		if n == 0 {
			continue
		}
		key := appendRunKey(nil, lane, day, from)
		var old run
		if v := b.Get(key); v != nil {
			if old, err = readRun(key, v); err != nil {
				return added, err
			}
		}
		merged := union(old, prints[:n])
		added += len(merged) - old.len()
		prints = prints[n:]
		if err := writeRuns(b, lane, day, from, merged); err != nil {
			return added, err
		}
	}
	return added, nil
}

// writeRuns writes fingerprints as runs, the first one under from.
func writeRuns(b *bolt.Bucket, lane uint32, day uint16, from uint64, prints []uint64) error {
	size := len(prints)
	if size > runMax {
		pieces := (size + runCut - 1) / runCut
		size = (size + pieces - 1) / pieces
	}
	for piece := range slices.Chunk(prints, size) {
		key := appendRunKey(nil, lane, day, from)
		v := make([]byte, 0, 8*len(piece)+sealLen)
		for _, p := range piece {
			v = binary.LittleEndian.AppendUint64(v, p)
		}
		if err := b.Put(key, seal(key, v)); err != nil {
			return err
		}
		prints = prints[len(piece):]
		if len(prints) > 0 {
			from = prints[0]
		}
	}
	return nil
}

// union merges two ascending sets.
func union(old run, prints []uint64) []uint64 {
	out := make([]uint64, 0, old.len()+len(prints))
	i := 0
	for _, p := range prints {
		for ; i < old.len() && old.at(i) < p; i++ {
			out = append(out, old.at(i))
		}
		if i < old.len() && old.at(i) == p {
			i++
		}
		out = append(out, p)
	}
	for ; i < old.len(); i++ {
		out = append(out, old.at(i))
	}
	return out
}
