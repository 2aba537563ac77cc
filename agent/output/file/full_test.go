//go:build linux

package file

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
)

// A disk that fills up in the middle of a batch: the file is as it was before,
// and the batch goes in when there is room again.
func TestInvariant1_DiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	path := filepath.Join(dir, "f")
	ballast := filepath.Join(dir, "ballast")
	o := open(t, Config{Path: path})
	t.Cleanup(func() { _ = o.Close() }) // before the file system goes
	send(t, o, "a", 10)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	b := batch(outputtest.Numbered("b", 600)) // 44 KiB
	err = o.Send(t.Context(), b)
	if !errors.Is(err, syscall.ENOSPC) || fault.KindOf(err) != fault.Held || fault.HintOf(err) == "" {
		t.Fatalf("%v, hint %q", err, fault.HintOf(err))
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Fatalf("%d bytes after, %d before: %v", len(after), len(before), err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := o.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if n := len((&onDisk{t, path}).Records()); n != 610 {
		t.Errorf("%d records", n)
	}
}
