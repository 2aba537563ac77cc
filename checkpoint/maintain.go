package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// stepKeys is how many entries one transaction of Maintain moves or removes at
// most: some ten milliseconds, for which a Commit may have to wait.
const stepKeys = 8192

// Maintain makes the store smaller: it removes what lies below the prune lines
// and what is left of forgotten outputs, and packs the days that are older
// than the two newest by now and below their lane's watermark. now is S3's
// time, not the local clock's. The work is done in short steps, between which
// others commit; when ctx ends, the rest stays for the next time and the
// context's error is returned. Nothing that other methods return changes by it.
func (s *Store) Maintain(ctx context.Context, now time.Time) error {
	if err := s.bury(ctx); err != nil {
		return err
	}
	if err := s.dropDays(ctx, now); err != nil {
		return err
	}
	limit := packLimit(now)
	lanes, err := s.lanesToMaintain(limit)
	if err != nil {
		return err
	}
	for len(lanes) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		done := 0
		err := s.update("packing the checkpoint", func(tx *bolt.Tx) error {
			done = 0
			w := newWriter(s, tx)
			budget := stepKeys
			for _, id := range lanes {
				if err := w.maintain(id, limit, &budget); err != nil {
					return err
				}
				if budget <= 0 {
					break // this lane may not be done
				}
				done++
			}
			if budget == stepKeys {
				return errUnchanged
			}
			return w.finish()
		})
		if err != nil {
			return err
		}
		lanes = lanes[done:]
	}
	return nil
}

// packLimit returns the day before which days may be packed: the two newest
// days are those of now and the one before.
func packLimit(now time.Time) uint16 {
	today := now.Unix() / 86400
	return uint16(max(0, min(today-1, 0xFFFF)))
}

// lanesBatch is how many lanes are looked at in one read transaction.
const lanesBatch = 2048

// lanesToMaintain returns the lanes that have something to prune or to pack.
func (s *Store) lanesToMaintain(limit uint16) ([]uint32, error) {
	var found []uint32
	for batch := range slices.Chunk(s.allLaneIDs(), lanesBatch) {
		err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
			for _, id := range batch {
				r, ok, err := findRow(tx, id)
				if err != nil {
					return err
				}
				if ok && hasWork(tx, id, &r, limit) {
					found = append(found, id)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// hasWork reports whether a lane may have something to prune or to pack.
func hasWork(tx *bolt.Tx, id uint32, r *row, limit uint16) bool {
	prune, pack := r.pruneDay(), r.packDay(limit)
	for _, b := range [...]struct {
		name   []byte
		count  uint64
		before uint16
	}{
		{bucketRecent, r.recent, max(prune, pack)}, {bucketPartial, r.partial, prune}, {bucketPacked, r.packed, prune},
	} {
		if b.count == 0 {
			continue
		}
		k, _ := tx.Bucket(b.name).Cursor().Seek(laneKey(id))
		if len(k) >= 6 && binary.BigEndian.Uint32(k) == id && binary.BigEndian.Uint16(k[4:]) < b.before {
			return true
		}
	}
	return false
}

// pruneDay returns the day before which all is below the prune line.
func (r *row) pruneDay() uint16 {
	day, _ := folderDay(r.head.Pruned)
	return day
}

// packDay returns the day before which days are packed.
func (r *row) packDay(limit uint16) uint16 {
	day, _ := folderDay(r.head.Watermark)
	return min(day, limit)
}

// maintain prunes and packs one lane, and takes the number of entries that it
// touched off budget.
func (w *writer) maintain(id uint32, limit uint16, budget *int) error {
	l, ok := w.s.laneByID(id)
	if !ok {
		return nil // forgotten meanwhile
	}
	st, err := w.find(&l)
	if err != nil || st == nil {
		return err
	}
	if err := w.prune(st, budget); err != nil {
		return err
	}
	return w.pack(st, st.row.packDay(limit), budget)
}

// prune removes whole days below the prune line, and of the positions that
// begin with no date those that are below it.
func (w *writer) prune(st *laneState, budget *int) error {
	before := st.row.pruneDay()
	for _, b := range [...]struct {
		name  []byte
		count *uint64
	}{
		{bucketRecent, &st.row.recent}, {bucketPartial, &st.row.partial}, {bucketPacked, &st.row.packed},
	} {
		if *b.count == 0 || *budget <= 0 {
			continue
		}
		var keys [][]byte
		bucket := w.tx.Bucket(b.name)
		c := bucket.Cursor()
		prefix := laneKey(st.id)
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix) && *budget > 0; k, v = c.Next() {
			if len(k) < 8 {
				return damagef("a key in %s is too short", b.name)
			}
			day := binary.BigEndian.Uint16(k[4:])
			if day >= before {
				break
			}
			if day == 0 && string(k[8:]) >= st.row.head.Pruned {
				continue
			}
			n := uint64(1)
			if b.count == &st.row.packed {
				r, err := readRun(k, v)
				if err != nil {
					return err
				}
				n = uint64(r.len())
			}
			*b.count -= n
			keys = append(keys, bytes.Clone(k))
			*budget--
		}
		st.dirty = st.dirty || len(keys) > 0
		for _, k := range keys {
			if err := bucket.Delete(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// pack moves days before limit from recent to packed, or as much of them as
// the budget allows. What is left of a day is merged in the next step.
func (w *writer) pack(st *laneState, limit uint16, budget *int) error {
	recent := w.tx.Bucket(bucketRecent)
	for *budget > 0 && st.row.recent > 0 {
		var keys [][]byte
		var prints []uint64
		var day uint16
		c := recent.Cursor()
		// Day 0, positions without a date, is never packed.
		first := binary.BigEndian.AppendUint16(laneKey(st.id), 1)
		for k, v := c.Seek(first); *budget > 0 && bytes.HasPrefix(k, first[:4]); k, v = c.Next() {
			if !marked(k, v) || len(k) < 8 {
				return damagef("a settled entry does not have its mark")
			}
			if len(keys) == 0 {
				day = binary.BigEndian.Uint16(k[4:])
			}
			if day >= limit || binary.BigEndian.Uint16(k[4:]) != day {
				break
			}
			keys = append(keys, bytes.Clone(k))
			prints = append(prints, w.s.hash.sum(k[6:]))
			*budget--
		}
		if len(keys) == 0 {
			return nil
		}
		slices.Sort(prints)
		added, err := mergeRuns(w.tx.Bucket(bucketPacked), st.id, day, slices.Compact(prints))
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := recent.Delete(k); err != nil {
				return err
			}
		}
		st.row.recent -= uint64(len(keys))
		st.row.packed += uint64(added)
		st.dirty = true
	}
	return nil
}

// bury removes what is left of forgotten lanes.
func (s *Store) bury(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		any := false
		if err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
			k, _ := tx.Bucket(bucketDead).Cursor().First()
			any = k != nil
			return nil
		}); err != nil || !any {
			return err
		}
		if err := s.update("packing the checkpoint", burySome); err != nil {
			return err
		}
	}
}

func burySome(tx *bolt.Tx) error {
	budget := stepKeys
	var gone [][]byte
	dead := tx.Bucket(bucketDead)
	c := dead.Cursor()
	for lane, v := c.First(); lane != nil && budget > 0; lane, v = c.Next() {
		if _, err := unseal("dead", lane, v); err != nil {
			return err
		}
		for _, name := range [...][]byte{bucketRecent, bucketPacked, bucketPartial, bucketParked, bucketDays} {
			var keys [][]byte
			b := tx.Bucket(name)
			if b == nil {
				continue
			}
			in := b.Cursor()
			for k, _ := in.Seek(lane); budget > 0 && bytes.HasPrefix(k, lane); k, _ = in.Next() {
				keys = append(keys, bytes.Clone(k))
				budget--
			}
			for _, k := range keys {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
		}
		budget-- // so that lanes without anything end a step, too
		if budget > 0 {
			gone = append(gone, bytes.Clone(lane))
		}
	}
	for _, lane := range gone {
		if err := dead.Delete(lane); err != nil {
			return err
		}
	}
	return nil
}
