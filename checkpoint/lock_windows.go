package checkpoint

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes a lock on f, an exclusive one unless it is to be shared, or
// returns errLocked. Windows locks
// keep others from reading, too: the one byte locked lies far behind the text
// that others shall read.
func lockFile(f *os.File, shared bool) error {
	how := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !shared {
		how |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		how, 0, 1, 0,
		&windows.Overlapped{Offset: 1<<32 - 1, OffsetHigh: 1<<31 - 1})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

// syncDir does nothing: Windows can't sync a directory, and NTFS keeps its
// own journal of renames.
func syncDir(string) error { return nil }
