//go:build linux

package torture

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/checkpoint"
)

// stateSize is how large the disk of the state is.
const stateSize = 24 << 20

// disk is the directory of the state: a small file system of its own where
// that may be mounted.
type disk struct {
	dir     string
	mounted bool
}

func newDisk(dir string) (*disk, error) {
	d := &disk{dir: dir}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state's directory: %w", err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", stateSize))
	d.mounted = err == nil
	return d, nil
}

func (d *disk) close() {
	if d.mounted {
		_ = syscall.Unmount(d.dir, syscall.MNT_DETACH)
	}
}

// writable makes the file system of the state one that may be written to, or
// only be read. No agent may have it open.
func (d *disk) writable(yes bool) error {
	var flags uintptr = syscall.MS_REMOUNT
	if !yes {
		flags |= syscall.MS_RDONLY
	}
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", flags, fmt.Sprintf("size=%d,mode=0700", stateSize)); err != nil {
		return fmt.Errorf("making the state writable (%t): %w", yes, err)
	}
	return nil
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves no room on the disk.
func (d *disk) fill() error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return fmt.Errorf("filling the disk: %w", err)
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("filling the disk: %w", err)
			}
			size /= 2
		}
	}
	return nil
}

// free makes room again.
func (d *disk) free() { _ = os.Remove(d.ballast()) }

func (d *disk) file() string { return filepath.Join(d.dir, "checkpoint.db") }

// damage harms the state while no agent runs, and says how; "" if there is
// no state yet.
func (d *disk) damage(how string, rng *rand.Rand) error {
	if how == stateDeleted {
		if err := os.Remove(d.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("deleting the state: %w", err)
		}
		return nil
	}
	f, err := os.OpenFile(d.file(), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("damaging the state: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	if how == stateCut {
		return f.Truncate(rng.Int64N(info.Size()))
	}
	for range 1 + rng.IntN(16) {
		b, at := make([]byte, 1), rng.Int64N(info.Size())
		if _, err := f.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("damaging the state: %w", err)
		}
		b[0] ^= 1 << rng.IntN(8)
		if _, err := f.WriteAt(b, at); err != nil {
			return fmt.Errorf("damaging the state: %w", err)
		}
	}
	return nil
}

// spot is where something is parked.
type spot struct {
	output, position string
	record           int // progress.WholeObject for an object
}

// parked is what the state says is parked, by where it is, with its reason.
func (d *disk) parked() (map[spot]string, error) {
	store, _, err := checkpoint.Open(d.dir, checkpoint.Options{})
	if err != nil {
		return nil, fmt.Errorf("opening the state: %w", err)
	}
	defer func() { _ = store.Close() }()
	all := map[spot]string{}
	err = store.Parked(func(e progress.Entry) bool {
		all[spot{e.Lane.Output, e.Position, e.Record}] = string(e.Reason)
		return true
	})
	return all, err
}

// leftovers are files that have no business in the state's directory.
func (d *disk) leftovers() (all []string) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "checkpoint.db", name == "checkpoint.lock", strings.HasPrefix(name, "checkpoint.db.damaged-"):
		default:
			all = append(all, name)
		}
	}
	return all
}
