//go:build unix

package main

import "golang.org/x/sys/unix"

// freeSpace returns how many bytes a user may still write to the file system of
// a path; -1 if that is not known.
func freeSpace(path string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // types differ between systems
}
