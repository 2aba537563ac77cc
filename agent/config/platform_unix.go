//go:build !windows

package config

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const (
	defaultStateDir = "/var/lib/trailpoll"
	defaultPath     = "/etc/trailpoll/trailpoll.toml"
)

// accessOf judges the owner and the mode of an open file.
func accessOf(info fs.FileInfo) access {
	uid := os.Geteuid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return judgeAccess(info.Mode().Perm(), int(st.Uid), uid)
	}
	return judgeAccess(info.Mode().Perm(), uid, uid)
}

func judgeAccess(mode fs.FileMode, owner, user int) access {
	var a access
	switch {
	case owner != 0 && owner != user:
		a.writable = fmt.Sprintf("it belongs to another user (id %d), who can write to it", owner)
		a.remedy = "run chown on it: it must belong to root or to the user that the agent runs as"
	case mode&0o022 != 0:
		a.writable = fmt.Sprintf("others can write to it (mode %04o)", mode)
		a.remedy = "run chmod go-w on it"
	}
	// A group that root lets read its file is one that was chosen for it: the
	// agent's, when a package or "service install" has set it up.
	if mode&0o004 != 0 || mode&0o040 != 0 && owner != 0 {
		a.readable = fmt.Sprintf("others can read the file (mode %04o)", mode)
	}
	return a
}
