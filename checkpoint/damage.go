package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/trailpoll/trailpoll/agent/fault"
)

var (
	// ErrHeld: another agent holds the state. The error's text names it.
	ErrHeld = errors.New("the state is held by another agent")
	// ErrNewer: the file was written by a newer program.
	ErrNewer = errors.New("the checkpoint was written by a newer version of trailpoll")
	// ErrBackward: a watermark or a prune line would go back, or a prune line
	// would pass its watermark. Nothing was changed.
	ErrBackward = errors.New("progress would go back")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the checkpoint is closed")
)

// DamagedError says that the file does not hold what was written to it. The
// store does nothing more; the next Open sets the file aside and makes a new
// one.
type DamagedError struct {
	Path string
	Err  error // what does not fit
}

// Error names the file and what does not fit.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("checkpoint %q is damaged: %v", e.Path, e.Err)
}

// Unwrap returns the cause with a hint for the operator.
func (e *DamagedError) Unwrap() error {
	return &fault.Error{
		Kind: fault.Misconfigured, Op: "reading the checkpoint", Err: e.Err,
		Hint: "start trailpoll again: it sets the file aside and goes over the late horizon again, " +
			"which repeats records and loses none; look after the disk",
	}
}

// damage is the error of a file that does not hold what was written.
type damage struct{ what string }

func (d *damage) Error() string { return d.what }

func damagef(format string, args ...any) error {
	return &damage{fmt.Sprintf(format, args...)}
}

func isDamage(err error) bool {
	_, ok := errors.AsType[*damage](err)
	return ok
}

// guarded calls f and makes an error of a panic that a damaged file causes:
// bbolt asserts by panicking and follows page numbers without looking, and
// memory that is mapped from a file faults where the file was cut or can't be
// read. Any other panic is a fault of the program and goes on.
func guarded(f func() error) (err error) {
	// For this goroutine only: f must not leave reading to another.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if !blamesFile(p) {
				panic(p)
			}
			text := fmt.Sprint(p)
			err = damagef("it broke off with %q", text[:min(len(text), 200)])
		}
	}()
	return f()
}

// blamesFile tells a panic by what the file holds from one by our own fault:
// it is a fault at an address, or comes out of bbolt. To be called while
// panicking.
func blamesFile(p any) bool {
	if _, ok := p.(interface{ Addr() uintptr }); ok {
		return true
	}
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	thrown := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			thrown = true
		case thrown && !strings.HasPrefix(f.Function, "runtime."):
			// What bbolt calls to compare and search panics on its behalf.
			if strings.HasPrefix(f.Function, "go.etcd.io/bbolt") {
				return true
			}
			if !strings.HasPrefix(f.Function, "sort.") && !strings.HasPrefix(f.Function, "bytes.") {
				return false
			}
		}
		if !more {
			return false
		}
	}
}

// transact runs f in one transaction. Whatever f or bbolt does, the locks of
// the database are free again when it returns, or else stuck is true.
func transact(db *bolt.DB, write bool, f func(*bolt.Tx) error) (stuck bool, err error) {
	stuck = true
	err = guarded(func() error {
		tx, err := db.Begin(write)
		if err != nil {
			stuck = false
			return err
		}
		ended := false
		defer func() {
			if !ended { // panicking; if Rollback panics too, the locks stay taken
				_ = tx.Rollback()
				stuck = false
			}
		}()
		if err := f(tx); err != nil || !write {
			ended = true
			rollback := tx.Rollback()
			stuck = false
			return errors.Join(err, rollback)
		}
		// A crash before Commit has written bbolt's meta page leaves the
		// state of the last commit; a crash after, that of this one, although
		// the caller was never told. Committing the same again changes nothing.
		err = tx.Commit()
		ended, stuck = true, false
		return err
	})
	return stuck, err
}

// errUnchanged, returned by what runs in a write transaction, ends it without
// a commit and without an error.
var errUnchanged = errors.New("nothing to change")

func (s *Store) view(op string, f func(*bolt.Tx) error) error { return s.run(op, false, f) }

// update runs f in a write transaction, which is durable when it returns nil.
func (s *Store) update(op string, f func(*bolt.Tx) error) error {
	// One writer at a time waits here and not inside bbolt, where a writer
	// that broke off could keep it waiting for ever.
	s.writer.Lock()
	defer s.writer.Unlock()
	return s.run(op, true, f)
}

func (s *Store) run(op string, write bool, f func(*bolt.Tx) error) error {
	err := s.tryRun(write, f)
	if errors.Is(err, bolterrors.ErrInvalidMapping) {
		// The file could not be mapped again when it had to grow, which on
		// Windows is how a full disk shows. Opening it anew mends that.
		if err = s.reopen(); err == nil {
			err = s.tryRun(write, f)
		}
	}
	switch {
	case err == nil, errors.Is(err, errUnchanged):
		return nil
	case isDamage(err):
		return s.setDamaged(err)
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return fmt.Errorf("%s: %w", op, ErrClosed)
	case isDiskFull(err):
		return &fault.Error{
			Kind: fault.Temporary, Op: op, Err: fmt.Errorf("no room on the disk: %w", err),
			Hint: fmt.Sprintf("make room on the disk that holds %q; nothing is lost meanwhile", s.dir),
		}
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok && write {
		// After a failed write or sync nobody knows what of it is on the disk,
		// and the system won't say again (it takes the pages for clean). To
		// build upon that could destroy the tree, so the store stops here.
		return s.setFailed(op, err)
	}
	return err
}

func (s *Store) tryRun(write bool, f func(*bolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := s.broken.Load(); p != nil {
		return *p
	}
	if s.db == nil {
		return ErrClosed
	}
	stuck, err := transact(s.db, write, f)
	if stuck {
		s.stuck.Store(true)
	}
	return err
}

// setDamaged puts the store out of use, and leaves word for the next Open.
func (s *Store) setDamaged(err error) error {
	var broken error = &DamagedError{Path: filepath.Join(s.dir, fileName), Err: err}
	if !s.broken.CompareAndSwap(nil, &broken) {
		return *s.broken.Load()
	}
	// A disk that takes nothing more can't take the marker either; then the
	// next Open has its own check and what is read later.
	if !s.opts.readOnly {
		_ = writeMarker(s.dir, err.Error())
	}
	return broken
}

func (s *Store) setFailed(op string, err error) error {
	var broken error = &fault.Error{
		Kind: fault.Misconfigured, Op: op, Err: err,
		Hint: "the disk failed to write; look after it, then start trailpoll again",
	}
	s.broken.CompareAndSwap(nil, &broken)
	return *s.broken.Load()
}

// isDiskFull knows a full disk or quota. bbolt passes some of these errors on
// as text only.
func isDiskFull(err error) bool {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, bolterrors.ErrMaxSizeReached) {
		return true
	}
	text := err.Error()
	for _, s := range [...]string{
		"no space left on device", "disk quota exceeded", "file too large", "not enough space on the disk",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// writeMarker leaves word that the file must not be trusted.
func writeMarker(dir, why string) error {
	f, err := os.OpenFile(filepath.Join(dir, markerName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s\n", time.Now().UTC().Format(time.RFC3339), why)
	return errors.Join(err, adopt(f), f.Sync(), f.Close(), syncDir(dir))
}
