package main

import (
	"math"

	"golang.org/x/sys/windows"
)

// freeSpace returns how many bytes a user may still write to the volume of a
// path; -1 if that is not known.
func freeSpace(path string) int64 {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return -1
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, nil, nil); err != nil {
		return -1
	}
	return int64(min(free, math.MaxInt64))
}
