package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// dirLock is the state directory, held for this process. It is a file of its
// own, never removed and never renamed, because the checkpoint itself is
// replaced when it is compacted or set aside: who waits for a lock on a file
// that is then replaced would hold nothing. The system gives the lock back
// when the process ends, however it ends.
type dirLock struct {
	f      *os.File
	shared bool // by a reader
}

// errLocked: another process has the lock.
var errLocked = errors.New("locked")

const lockRetry = 20 * time.Millisecond

// lockDir takes the lock, waiting up to timeout for one who is just leaving.
func lockDir(dir string, timeout time.Duration) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := adopt(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l, err := awaitLock(f, dir, timeout, false)
	if err != nil {
		return nil, err
	}
	// Only for the other's message: without it the lock holds all the same.
	_ = l.write(fmt.Sprintf("process %d since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339)))
	return l, nil
}

// awaitLock locks an open file, or closes it.
func awaitLock(f *os.File, dir string, timeout time.Duration, shared bool) (*dirLock, error) {
	for end := time.Now().Add(timeout); ; <-time.After(lockRetry) { // a lock has no event to wait for
		err := lockFile(f, shared)
		if err == nil {
			break
		}
		if !errors.Is(err, errLocked) {
			return nil, errors.Join(fmt.Errorf("locking %q: %w", f.Name(), err), f.Close())
		}
		if time.Now().After(end) {
			owner := readOwner(f)
			_ = f.Close()
			return nil, &fault.Error{
				Kind: fault.Misconfigured, Op: fmt.Sprintf("opening the state in %q", dir),
				Err:  fmt.Errorf("%w: %s", ErrHeld, owner),
				Hint: "stop the other agent, or give this one a state_dir of its own",
			}
		}
	}
	return &dirLock{f, shared}, nil
}

func (l *dirLock) write(owner string) error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(owner), 0)
	return err
}

// release gives the lock back.
func (l *dirLock) release() error {
	if l.shared {
		return l.f.Close()
	}
	return errors.Join(l.write(""), l.f.Close())
}

// readOwner says who holds the lock, as the holder wrote it.
func readOwner(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
	if s := strings.TrimSpace(string(b)); err == nil && s != "" {
		return strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, s)
	}
	return "an unknown process"
}
