//go:build unix

package checkpoint

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A command that root runs leaves no file that the service can't open.
func TestFilesOfRootBelongToTheService(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes files of others")
	}
	const nobody = 65534
	dir := t.TempDir()
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, dir, Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := writeMarker(dir, "test"); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir, Options{}) // sets aside, makes anew
	_ = s.Close()
	all, err := os.ReadDir(dir)
	if err != nil || len(all) < 3 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, f := range all {
		info, err := os.Stat(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != nobody {
			t.Errorf("%s belongs to %d", f.Name(), got)
		}
	}
}
