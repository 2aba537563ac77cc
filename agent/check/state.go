package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// ConfigFile is the configuration, which has been read already: one that is
// wrong, or that others may write to, ends before anything is tried.
type ConfigFile struct {
	Path     string // "" = there is nothing to say of it
	Warnings []Advice
}

// Advice is what is not wrong and had better be otherwise.
type Advice struct{ What, Remedy string }

func (c *ConfigFile) check(x *part) {
	if c.Path == "" {
		return
	}
	tried := "read " + c.Path + ", and looked at who may read and write it"
	for _, w := range c.Warnings {
		x.warn("config", tried, w.What, w.Remedy)
	}
	if len(c.Warnings) == 0 {
		x.ok("config", tried, "nothing is wrong with it, and nobody else may write to it")
	}
}

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
	// is. ErrHeld says that another process holds it. nil = not asked.
	State func() (answer string, err error)
}

// ErrHeld is in the chain of State's error while another process holds the
// checkpoint.
var ErrHeld = errors.New("another process holds the checkpoint")

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
			x.warn("agent", "asked for a running agent", err.Error(),
				orElse(fault.HintOf(err), "run check as the user that the agent runs as, or as root or administrator"))
		case runs:
			x.ok("agent", "asked for a running agent", "one runs on this state")
		default:
			x.ok("agent", "asked for a running agent", "none runs")
		}
	}
	err := tryWrite(d.Path)
	switch {
	case errors.Is(err, os.ErrNotExist) && !runs:
		d.missing(x)
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
	if answer, err := d.State(); errors.Is(err, ErrHeld) {
		x.fail("checkpoint", "opened the checkpoint, only to read", err,
			"no agent answers in "+d.Path+", and still something holds its checkpoint: another command of trailpoll, or an agent that hangs; "+
				"end it, or give this agent a state_dir of its own. fuser or lsof names the process")
	} else if err != nil {
		x.fail("checkpoint", "opened the checkpoint, only to read", err, "")
	} else {
		x.ok("checkpoint", "opened the checkpoint, only to read", answer)
	}
}

// missing says whether a directory that is not there can be made, as the agent
// does when it first runs.
func (d *StateDir) missing(x *part) {
	parent := filepath.Dir(d.Path)
	for parent != filepath.Dir(parent) {
		if _, err := os.Stat(parent); !errors.Is(err, os.ErrNotExist) {
			break
		}
		parent = filepath.Dir(parent)
	}
	tried := "looked for " + d.Path
	if err := tryWrite(parent); err != nil {
		x.fail("state-dir", tried, fmt.Errorf("it is not there, and can't be made: %w", err),
			"make the directory "+d.Path+" with mode 0700, owned by the user that the agent runs as; trailpoll service install does so")
		return
	}
	x.ok("state-dir", tried, "it is not there yet: the agent makes it when it first runs")
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
