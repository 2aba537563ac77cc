//go:build !windows

package file

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// syncDir makes names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing the directory: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system that can't sync directories
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("syncing the directory: %w", err)
	}
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
