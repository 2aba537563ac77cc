package file

import (
	"errors"
	"syscall"
)

// syncDir does nothing: NTFS keeps names in its journal, and Windows syncs no
// directories.
func syncDir(string) error { return nil }

// ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL of winerror.h.
func isFull(err error) bool {
	return errors.Is(err, syscall.Errno(39)) || errors.Is(err, syscall.Errno(112))
}
