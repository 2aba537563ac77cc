package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// ErrNoState: there is no checkpoint in the directory yet.
var ErrNoState = errors.New("there is no state yet")

// OpenReadOnly opens the store in dir for reading alone, beside others who do
// the same. It makes, changes and removes nothing: a damaged file is an error,
// and stays where it is. It waits up to timeout (0 = 1 s) for an agent to
// leave, and returns ErrHeld if it does not, ErrNoState if there is no
// checkpoint. The store is to be closed by whoever opened it.
func OpenReadOnly(dir string, timeout time.Duration) (*Store, error) {
	if timeout == 0 {
		timeout = time.Second
	}
	s := &Store{dir: dir, opts: Options{Timeout: timeout, smallFile: smallFile, readOnly: true, step: func(string) {}}}
	s.scratch.New = func() any { return new(lookup) }
	if _, err := os.Stat(s.path()); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening the state in %q: %w", dir, ErrNoState)
	} else if err != nil {
		return nil, cannotRead(dir, err)
	}
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return nil, cannotRead(dir, err)
	}
	if s.lock, err = awaitLock(f, dir, timeout, true); err != nil {
		return nil, err
	}
	if err := s.openReadOnly(); err != nil {
		s.mu.Lock()
		_ = s.closeDB()
		s.mu.Unlock()
		_ = s.lock.release()
		return nil, err
	}
	return s, nil
}

func (s *Store) openReadOnly() error {
	why, _, err := s.look()
	if err != nil {
		return cannotRead(s.dir, err)
	}
	var r Report
	if why == "" {
		db, file, err := s.openBolt(s.path())
		if err == nil {
			s.mu.Lock()
			s.db, s.file = db, file
			s.mu.Unlock()
			err = s.tryRun(false, func(tx *bolt.Tx) error { return s.read(tx, &r) })
		}
		if isDamage(err) {
			why = err.Error()
		} else if err != nil {
			return s.openError(err)
		}
	}
	switch {
	case why != "":
		return &DamagedError{s.path(), damagef("%s", why)}
	case r.MigratedFrom != 0:
		return &fault.Error{
			Kind: fault.Misconfigured, Op: fmt.Sprintf("opening the state in %q", s.dir),
			Err:  fmt.Errorf("it is of version %d, and this program reads version %d", r.MigratedFrom, schema),
			Hint: "start the agent of this version once: it brings the state up to date",
		}
	}
	return nil
}

// cannotRead is for a directory that can't be read.
func cannotRead(dir string, err error) error {
	hint := "see that state_dir is the agent's"
	if errors.Is(err, fs.ErrPermission) {
		hint = "run the command as root or as the user that the agent runs as"
	}
	return &fault.Error{Kind: fault.Denied, Op: fmt.Sprintf("reading the state in %q", dir), Err: err, Hint: hint}
}
