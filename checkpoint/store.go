// Package checkpoint keeps the agent's progress in a bbolt file: how far each
// lane is, which objects past its prune line are settled, in flight or parked,
// and when each source was first seen. It is the only importer of bbolt, and
// implements the interfaces that the agent declares for it.
//
// What Commit has taken survives a crash, a power cut and kill -9. What the
// disk loses or alters is noticed, and the file set aside; the store never
// guesses.
package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// The files in the state directory.
const (
	fileName    = "checkpoint.db"          // the checkpoint
	newName     = "checkpoint.db.new"      // one being made; worth nothing yet
	compactName = "checkpoint.db.compact"  // a copy being compacted; worth nothing yet
	lockName    = "checkpoint.lock"        // held by the agent that runs, with its name
	markerName  = "checkpoint.damaged"     // says that the checkpoint must not be trusted
	asideName   = "checkpoint.db.damaged-" // with the time appended: set aside
)

// schema is the version of the layout below. When it changes, migrations gets
// a step and testdata a file of the version before.
const schema = 2

// Store is a checkpoint in a bbolt file. All its methods may be called from
// any goroutine; writers take turns.
//
// # Layout of the file (schema 2)
//
// Numbers in keys are big-endian. Every value but the marks ends with a
// CRC-32C of its key and itself (see seal). position is as appendPosition
// writes it: day uint16, form uint16, rest; one to one, the day first.
//
//	meta     "schema"            uint32
//	         "hash key"          16 random bytes, for the fingerprints
//	         "rebuilt"           there while the store stands in for a lost one
//	sources  source id           progress.Source as JSON
//	lanes    source, organization, account, log type, region, output;
//	         each with its length; and the number of the re-sync, if it is
//	         the lane of one
//	                             lane uint32, never given twice
//	heads    lane                progress.Head and four counts, see row
//	recent   lane position       mark: settled, not packed yet, or late
//	packed   lane day from       settled: up to 120 ascending fingerprints of
//	                             8 bytes, the least of them >= from uint64.
//	                             The first run of a day has from = 0.
//	partial  lane position       acknowledged records of an object in flight,
//	                             and the ETag of the content they count in
//	parked   lane position record
//	                             reason, error, attempts, …, and if it was
//	                             skipped, when and why; record is uint32, all
//	                             ones for the object as a whole
//	covered  lane                windows that re-syncs have gone over
//	days     lane day            how many objects of the day were settled
//	resyncs  id uint32           progress.Resync as JSON
//	dead     lane                forgotten: Maintain removes what is left of it
//
// Schema 1 had neither covered nor resyncs, nor lanes of re-syncs.
//
// One flat bucket with the lane in front of the key costs a fraction of a
// bucket per lane, which bbolt opens and writes back one by one. What a lane
// settles lands at the end of its range, so that pages fill up well.
//
// A day of a lane moves from recent to packed when it is older than the two
// newest days and the watermark has left it. An object that settles later in
// such a day stands in recent until the next Maintain merges it. So a position
// is settled if it is below the prune line, or in recent, or its fingerprint is
// in packed.
//
// Fingerprints are SipHash-2-4 of the position behind its day, under the
// store's own key. Two positions of one lane and day share one with 2^-64, and
// that would be a lost object, if one of them is settled and the other appears
// after its day was packed. With a million objects a day in a single lane, and
// all of them (instead of a few in a thousand) that late, one in
// 2^64 / 10^12 days, some 50,000 years, is lost.
type Store struct {
	dir  string
	opts Options
	lock *dirLock
	hash hashKey

	writer sync.Mutex   // one writer at a time
	mu     sync.RWMutex // guards db and file: held shared while they are used
	db     *bolt.DB     // nil once closed
	file   *os.File     // bbolt's own file, to close when bbolt can't

	broken atomic.Pointer[error] // why the store is out of use
	stuck  atomic.Bool           // bbolt broke off and holds its locks

	lanesMu sync.RWMutex
	ids     map[progress.Lane]uint32 // all lanes that are remembered
	lanes   map[uint32]progress.Lane // the same, the other way round
	rebuilt bool                     // guarded by lanesMu

	scratch sync.Pool // *lookup
}

// The buckets.
var (
	bucketMeta    = []byte("meta")
	bucketSources = []byte("sources")
	bucketLanes   = []byte("lanes")
	bucketHeads   = []byte("heads")
	bucketRecent  = []byte("recent")
	bucketPacked  = []byte("packed")
	bucketPartial = []byte("partial")
	bucketParked  = []byte("parked")
	bucketCovered = []byte("covered")
	bucketDays    = []byte("days") // not in buckets: it is made when it is first needed
	bucketResyncs = []byte("resyncs")
	bucketDead    = []byte("dead")

	keySchema  = []byte("schema")
	keyHash    = []byte("hash key")
	keyRebuilt = []byte("rebuilt")
)

// buckets returns all of them.
func buckets() [][]byte {
	return [][]byte{
		bucketMeta, bucketSources, bucketLanes, bucketHeads, bucketRecent,
		bucketPacked, bucketPartial, bucketParked, bucketCovered, bucketResyncs, bucketDead,
	}
}

// Stats is how large the store is.
type Stats struct {
	Size    int64 // bytes of the file, free pages included
	Free    int64 // bytes of free pages within
	Lanes   int   // lanes remembered
	Entries int   // settled objects remembered
	Packed  int   // how many of them are packed
	Partial int   // objects in flight with acknowledged records
	Parked  int   // parked objects and records, those that were skipped included
}

// Stats returns how large the store is. It reads one value a lane.
func (s *Store) Stats() (st Stats, err error) {
	err = s.view("reading the checkpoint", func(tx *bolt.Tx) error {
		st = Stats{Size: tx.Size(), Free: freeBytes(tx.DB())}
		if info, err := s.file.Stat(); err == nil {
			st.Size = info.Size()
		}
		return eachRow(tx, func(_ uint32, r row) error {
			st.Lanes++
			st.Entries += int(r.recent + r.packed)
			st.Packed += int(r.packed)
			st.Partial += int(r.partial)
			st.Parked += int(r.parked)
			return nil
		})
	})
	return st, err
}

// freeBytes returns how much of the file is free pages, as of the last commit.
func freeBytes(db *bolt.DB) int64 {
	st := db.Stats()
	return int64(st.FreePageN+st.PendingPageN) * int64(db.Info().PageSize)
}

// Rebuilt reports whether this store stands in for one that was damaged, which
// Options.Notice and Report have said when it happened. It is remembered until
// ClearRebuilt: a source first seen while it stands is not new, so it begins
// at the late horizon and not at its configured start.
func (s *Store) Rebuilt() bool {
	s.lanesMu.RLock()
	defer s.lanesMu.RUnlock()
	return s.rebuilt
}

// ClearRebuilt says that every source that the lost store knew has begun anew.
func (s *Store) ClearRebuilt() error {
	err := s.update("writing the checkpoint", func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Delete(keyRebuilt)
	})
	if err == nil {
		s.lanesMu.Lock()
		s.rebuilt = false
		s.lanesMu.Unlock()
	}
	return err
}

// Close closes the file and gives the state directory back. Calls under way
// end first; later ones return ErrClosed. A second Close does nothing.
func (s *Store) Close() error {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := errors.Join(s.closeDB(), s.lock.release())
	if err != nil {
		return fmt.Errorf("closing the checkpoint: %w", err)
	}
	return nil
}

// closeDB closes the database; mu is held.
func (s *Store) closeDB() error {
	db := s.db
	s.db = nil
	if db == nil {
		return nil
	}
	if s.stuck.Load() {
		// bbolt's own Close would wait for ever. Its memory map stays until
		// the process ends.
		return s.file.Close()
	}
	return guarded(db.Close)
}

// lane returns the number of a lane that is remembered.
func (s *Store) lane(l *progress.Lane) (uint32, bool) {
	s.lanesMu.RLock()
	defer s.lanesMu.RUnlock()
	id, ok := s.ids[*l]
	return id, ok
}

// laneByID returns a lane that is remembered.
func (s *Store) laneByID(id uint32) (progress.Lane, bool) {
	s.lanesMu.RLock()
	defer s.lanesMu.RUnlock()
	l, ok := s.lanes[id]
	return l, ok
}

// laneIDs returns the numbers of all lanes that are wanted, ascending.
func (s *Store) laneIDs(wanted func(l *progress.Lane) bool) []uint32 {
	s.lanesMu.RLock()
	defer s.lanesMu.RUnlock()
	var ids []uint32
	for l, id := range s.ids {
		if wanted(&l) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// allLaneIDs returns the numbers of all lanes, ascending.
func (s *Store) allLaneIDs() []uint32 {
	s.lanesMu.RLock()
	defer s.lanesMu.RUnlock()
	return slices.Sorted(maps.Keys(s.lanes))
}

// laneKey returns the number of a lane as keys begin with it.
func laneKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

// readRow returns the row of a lane.
func readRow(tx *bolt.Tx, id uint32) (row, error) {
	key := laneKey(id)
	v, err := unseal("heads", key, tx.Bucket(bucketHeads).Get(key))
	if err != nil {
		return row{}, err
	}
	return parseRow(v)
}

// eachRow calls f with the row of each lane, ascending by number.
func eachRow(tx *bolt.Tx, f func(id uint32, r row) error) error {
	return tx.Bucket(bucketHeads).ForEach(func(k, v []byte) error {
		if len(k) != 4 {
			return damagef("a lane without a number in heads")
		}
		v, err := unseal("heads", k, v)
		if err != nil {
			return err
		}
		r, err := parseRow(v)
		if err != nil {
			return err
		}
		return f(binary.BigEndian.Uint32(k), r)
	})
}

func (s *Store) path() string { return filepath.Join(s.dir, fileName) }
