package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// keptDays is for how many days it is remembered how many objects of each day
// were settled: a year, with a month to look at it.
const keptDays = 400

// dayKey is lane and day, as the keys of positions begin.
type dayKey [6]byte

// countDay notes that an object of that lane and day is settled, which was not.
func (w *writer) countDay(st *laneState, key []byte) {
	day := dayKey(key[:6])
	if st.lane.Resync != 0 || day[4] == 0 && day[5] == 0 {
		return // what a re-sync has settled for itself; a position without a date
	}
	if w.days == nil {
		w.days = map[dayKey]uint64{}
	}
	w.days[day]++
}

// writeDays writes what countDay has counted.
func (w *writer) writeDays() error {
	if len(w.days) == 0 {
		return nil
	}
	// A file that an earlier program of this version made has no such bucket.
	b, err := w.tx.CreateBucketIfNotExists(bucketDays)
	if err != nil {
		return err
	}
	for _, k := range slices.SortedFunc(maps.Keys(w.days), func(x, y dayKey) int { return bytes.Compare(x[:], y[:]) }) {
		n, err := readDay(k[:], b.Get(k[:]))
		if err != nil {
			return err
		}
		if err := b.Put(k[:], seal(k[:], binary.AppendUvarint(nil, n+w.days[k]))); err != nil {
			return err
		}
	}
	return nil
}

func readDay(key, sealed []byte) (uint64, error) {
	if sealed == nil {
		return 0, nil
	}
	v, err := unseal("days", key, sealed)
	if err != nil {
		return 0, err
	}
	d := decoder{b: v}
	n := d.uvarint()
	return n, d.end("the count of a day")
}

// Days returns how many objects of each day's folder, YYYY-MM-DD, were settled
// in each lane of a source and an output, from that day on. What lies more
// than 400 days back is forgotten. Empty, never nil, if there is nothing.
func (s *Store) Days(id progress.SourceID, output string, from time.Time) (map[progress.Stream]map[string]int64, error) {
	all := map[progress.Stream]map[string]int64{}
	first := uint16(max(0, min(from.Unix()/86400, 0xFFFF)))
	err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketDays)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for _, lane := range s.laneIDs(func(l *progress.Lane) bool { return l.Source == id && l.Output == output && l.Resync == 0 }) {
			l, ok := s.laneByID(lane)
			if !ok {
				continue
			}
			prefix := laneKey(lane)
			for k, v := c.Seek(binary.BigEndian.AppendUint16(bytes.Clone(prefix), first)); bytes.HasPrefix(k, prefix); k, v = c.Next() {
				if len(k) != len(dayKey{}) {
					return damagef("a day that is none")
				}
				n, err := readDay(k, v)
				if err != nil {
					return err
				}
				if all[l.Stream] == nil {
					all[l.Stream] = map[string]int64{}
				}
				day := time.Unix(int64(binary.BigEndian.Uint16(k[4:]))*86400, 0).UTC()
				all[l.Stream][day.Format(time.DateOnly)] = int64(n)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// dropDays removes the counts of days that are kept no longer.
func (s *Store) dropDays(ctx context.Context, now time.Time) error {
	limit := uint16(max(0, min(now.Unix()/86400-keptDays, 0xFFFF)))
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var old [][]byte
		if err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
			old = oldDays(tx.Bucket(bucketDays), limit)
			return nil
		}); err != nil || len(old) == 0 {
			return err
		}
		if err := s.update("packing the checkpoint", func(tx *bolt.Tx) error {
			for _, k := range old {
				if err := tx.Bucket(bucketDays).Delete(k); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
}

// oldDays returns keys of days before limit, at most as many as one step
// removes. It looks at the beginning of each lane only.
func oldDays(b *bolt.Bucket, limit uint16) (old [][]byte) {
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for k, _ := c.First(); len(k) == len(dayKey{}) && len(old) < stepKeys; {
		if binary.BigEndian.Uint16(k[4:]) < limit {
			old = append(old, bytes.Clone(k))
			k, _ = c.Next()
			continue
		}
		lane := binary.BigEndian.Uint32(k)
		if lane == 1<<32-1 {
			break
		}
		k, _ = c.Seek(laneKey(lane + 1))
	}
	return old
}
