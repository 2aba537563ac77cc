//go:build !windows

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// owner returns the id of the user that a file belongs to, -1 if the system
// does not say.
func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// group returns the same of its group.
func group(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Gid)
	}
	return -1
}

// forService lets the service's group read a configuration that root writes,
// if the service is installed.
func forService(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	g, err := user.LookupGroup(serviceGroup)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
		return nil
	}
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o640) //nolint:gosec // the service's group, and nobody else
}

// serviceGroup is the group of the service's user.
const serviceGroup = "trailpoll"
