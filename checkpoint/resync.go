package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Resyncs returns all re-syncs that are remembered, ascending by id.
func (s *Store) Resyncs() (all []progress.Resync, err error) {
	err = s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		all = nil
		return tx.Bucket(bucketResyncs).ForEach(func(k, v []byte) error {
			v, err := unseal("resyncs", k, v)
			if err != nil {
				return err
			}
			var r progress.Resync
			if err := json.Unmarshal(v, &r); err != nil {
				return damagef("a re-sync can't be read: %v", err)
			}
			all = append(all, r)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// ResyncHeads returns the heads of all lanes of a re-sync that are remembered.
// Empty, never nil, if there are none.
func (s *Store) ResyncHeads(id progress.ResyncID) (map[progress.Lane]progress.Head, error) {
	heads := map[progress.Lane]progress.Head{}
	err := s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		lanes := s.laneIDs(func(l *progress.Lane) bool { return id != 0 && l.Resync == id })
		return s.eachHead(tx, lanes, func(l progress.Lane, h progress.Head) { heads[l] = h })
	})
	if err != nil {
		return nil, err
	}
	return heads, nil
}

// Covered returns the windows of a lane that re-syncs have gone over,
// ascending and apart.
func (s *Store) Covered(l progress.Lane) (windows []progress.Covered, err error) {
	id, ok := s.lane(&l)
	if !ok {
		return nil, nil
	}
	err = s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		windows = nil
		key := laneKey(id)
		v := tx.Bucket(bucketCovered).Get(key)
		if v == nil {
			return nil
		}
		v, err := unseal("covered", key, v)
		if err != nil {
			return err
		}
		windows, err = parseCovered(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return windows, nil
}

func appendCovered(dst []byte, windows []progress.Covered) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(windows)))
	for _, w := range windows {
		dst = appendTime(appendTime(appendTime(dst, w.From), w.To), w.AsOf)
	}
	return dst
}

func parseCovered(b []byte) (windows []progress.Covered, err error) {
	d := decoder{b: b}
	n := d.uvarint()
	for range n {
		if d.bad || len(d.b) == 0 {
			d.bad = true
			break
		}
		windows = append(windows, progress.Covered{From: d.time(), To: d.time(), AsOf: d.time()})
	}
	return windows, d.end("the covered windows of a lane")
}

func (w *writer) covered(c *progress.Changes) error {
	b := w.tx.Bucket(bucketCovered)
	for i := range c.Covered {
		x := &c.Covered[i]
		st, err := w.lane(&x.Lane)
		if err != nil {
			return err
		}
		key := laneKey(st.id)
		if len(x.Windows) == 0 {
			err = b.Delete(key)
		} else {
			err = b.Put(key, seal(key, appendCovered(nil, x.Windows)))
		}
		if err != nil {
			return fmt.Errorf("writing the covered windows of %s: %w", x.Lane.Stream, err)
		}
	}
	return nil
}

func (w *writer) resyncs(c *progress.Changes) error {
	b := w.tx.Bucket(bucketResyncs)
	for i := range c.Resyncs {
		r := &c.Resyncs[i]
		key := binary.BigEndian.AppendUint32(nil, uint32(r.ID))
		v, err := json.Marshal(r)
		if err == nil {
			err = b.Put(key, seal(key, v))
		}
		if err != nil {
			return fmt.Errorf("writing re-sync %d: %w", r.ID, err)
		}
		if !r.Over() {
			continue
		}
		if err := w.forgetResync(r.ID); err != nil {
			return err
		}
	}
	for _, id := range c.ForgetResyncs {
		if err := b.Delete(binary.BigEndian.AppendUint32(nil, uint32(id))); err != nil {
			return fmt.Errorf("forgetting re-sync %d: %w", id, err)
		}
		if err := w.forgetResync(id); err != nil {
			return err
		}
	}
	return nil
}

// forgetResync forgets the lanes of a re-sync, those included that this
// transaction has made.
func (w *writer) forgetResync(id progress.ResyncID) error {
	lanes := map[uint32]progress.Lane{}
	for _, n := range w.s.laneIDs(func(l *progress.Lane) bool { return l.Resync == id }) {
		if l, ok := w.s.laneByID(n); ok {
			lanes[n] = l
		}
	}
	for l, st := range w.byLane {
		if l.Resync == id && st != nil {
			lanes[st.id] = l
			delete(w.byLane, l)
			w.last = nil
		}
	}
	for n, l := range lanes {
		if err := w.s.forgetLane(w.tx, n, l); err != nil {
			return err
		}
	}
	return nil
}
