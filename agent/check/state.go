package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// StateDir is where the agent keeps its state.
type StateDir struct {
	Path string
	// Agent reports whether an agent runs on this state (true), none does
	// (false), or why that can't be told. nil = not asked.
	Agent func(ctx context.Context) (runs bool, err error)
	// Free returns how many bytes the file system has left for us; negative if
	// that is not known. nil = not asked.
	Free func(path string) int64
	// State opens what is remembered, without changing it, and says what there
	// is. nil = not asked.
	State func() (answer string, err error)
}

// scarce is when the space for the checkpoint is little: compacting it takes
// as much again as it is large.
const scarce = 1 << 30

func (d *StateDir) check(x *part) {
	tried := "wrote a file in " + d.Path + " and removed it"
	runs := false
	if d.Agent != nil {
		err := x.step(func(ctx context.Context) (err error) {
			runs, err = d.Agent(ctx)
			return err
		})
		switch {
		case err != nil:
			x.warn("agent", "asked for a running agent", err.Error(), "")
		case runs:
			x.ok("agent", "asked for a running agent", "one runs on this state")
		default:
			x.ok("agent", "asked for a running agent", "none runs")
		}
	}
	err := tryWrite(d.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		x.fail("state-dir", tried, err, "make the directory "+d.Path+", owned by the user that the agent runs as, with mode 0700; the service's installer does so")
		return
	case errors.Is(err, os.ErrPermission):
		x.fail("state-dir", tried, err, fmt.Sprintf("run check as the user that the agent runs as, or give that user %s: chown -R USER %s && chmod 0700 %s", d.Path, d.Path, d.Path))
		return
	case err != nil:
		x.fail("state-dir", tried, err, "see whether the disk is full, or mounted read-only")
		return
	}
	answer := "it can be written"
	if d.Free != nil {
		if free := d.Free(d.Path); free >= 0 && free < scarce {
			x.warn("state-dir", tried, fmt.Sprintf("it can be written, but only %d MiB are left", free>>20),
				"make room, or move state_dir: the state of 30 days of a million objects a day takes some 400 MiB, and as much again while it is compacted")
			answer = ""
		} else if free >= 0 {
			answer = fmt.Sprintf("it can be written; %d GiB are left", free>>30)
		}
	}
	if answer != "" {
		x.ok("state-dir", tried, answer)
	}
	if d.State == nil {
		return
	}
	if runs {
		x.skip("checkpoint", "open the checkpoint", "the running agent holds it; trailpoll status asks it")
		return
	}
	if answer, err := d.State(); err != nil {
		x.fail("checkpoint", "opened the checkpoint, only to read", err, "")
	} else {
		x.ok("checkpoint", "opened the checkpoint, only to read", answer)
	}
}

// tryWrite makes a file in a directory and removes it.
func tryWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".trailpoll-check-*")
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("trailpoll check"))
	err = errors.Join(err, f.Sync(), f.Close(), os.Remove(filepath.Join(dir, filepath.Base(f.Name()))))
	return err
}
