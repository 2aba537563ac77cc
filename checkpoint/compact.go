package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

const (
	compactFrom = 64 << 20 // bytes; a smaller file is not worth it
	compactTx   = 4 << 20  // bytes copied in one transaction: bounds memory
)

// compactIfItPays copies the file without its free pages, if these are more
// than half of it: bbolt reuses free pages but never gives them back. Until
// the rename the old file is the checkpoint, after it the new one, and what a
// crash leaves of the copy is removed by the next Open. It is done before
// anyone uses the store.
func (s *Store) compactIfItPays(r *Report) error {
	var before, free int64
	if err := s.tryRun(false, func(tx *bolt.Tx) error {
		before, free = tx.Size(), freeBytes(tx.DB())
		return nil
	}); err != nil {
		return err
	}
	if before < s.opts.compactMin || free <= before/2 {
		return nil
	}
	copied := filepath.Join(s.dir, compactName)
	err := s.compactTo(copied)
	if err != nil {
		_ = os.Remove(copied)
		if isDamage(err) {
			return err
		}
		// It works as it is, if larger than need be.
		s.opts.Notice(fmt.Sprintf("the checkpoint was not compacted: %v", err))
		return nil
	}
	s.opts.step("compacted")
	// Windows replaces no file that is open.
	s.mu.Lock()
	err = s.closeDB()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	renamed := os.Rename(copied, s.path())
	if renamed != nil {
		_ = os.Remove(copied)
		s.opts.Notice(fmt.Sprintf("the checkpoint was not compacted: %v", renamed))
	} else if err := syncDir(s.dir); err != nil {
		return err
	}
	s.opts.step("renamed")
	db, file, err := s.openBolt(s.path())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.db, s.file = db, file
	s.mu.Unlock()
	if renamed == nil {
		err = s.tryRun(false, func(tx *bolt.Tx) error {
			r.Compacted = before - tx.Size()
			return nil
		})
		s.opts.Notice(fmt.Sprintf("the checkpoint was compacted from %d to %d MiB",
			before>>20, (before-r.Compacted)>>20))
	}
	return err
}

// compactTo copies the database to a new file, which is on the disk when it
// returns.
func (s *Store) compactTo(path string) error {
	dst, _, err := s.openBolt(path)
	if err != nil {
		return err
	}
	dst.NoSync = true // one sync at the end will do: nobody needs half a copy
	err = guarded(func() error {
		return errors.Join(bolt.Compact(dst, s.db, compactTx), dst.Sync())
	})
	s.opts.step("copied")
	return errors.Join(err, dst.Close())
}
