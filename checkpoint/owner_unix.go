//go:build unix

package checkpoint

import (
	"os"
	"path/filepath"
	"syscall"
)

// adopt gives a file that root has made in the state directory to the
// directory's owner: a command that root runs must not leave a file that the
// service can't open.
func adopt(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
