package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// cost is what one run of a program took.
type cost struct {
	CPU  float64 `json:"cpu_seconds"` // user and system, of the program alone
	Wall float64 `json:"wall_seconds"`
	Peak int64   `json:"peak_memory_bytes"` // resident; 0 where the system doesn't say
	// What it asked of S3.
	Lists int `json:"lists"`
	Gets  int `json:"gets"`
}

// patience is how long one run of a program may take.
const patience = 10 * time.Minute

// runChild runs a program to its end. What it says is kept for the error if it
// fails.
func runChild(ctx context.Context, program string, args []string) (cost, error) {
	return runChildIn(ctx, nil, program, args)
}

// runChildIn does so with an environment of its own; nil = this program's.
func runChildIn(ctx context.Context, env []string, program string, args []string) (cost, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	var last lastWords
	cmd.Stdout, cmd.Stderr = &last, &last
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return cost{}, fmt.Errorf("starting %s: %w", program, err)
	}
	peak := watchPeak(cmd.Process.Pid)
	err := cmd.Wait()
	wall := time.Since(began)
	most := peak()
	if err != nil {
		return cost{}, fmt.Errorf("running %s: %w", program, errors.Join(err, context.Cause(ctx), last.err()))
	}
	s := cmd.ProcessState
	return cost{CPU: (s.UserTime() + s.SystemTime()).Seconds(), Wall: wall.Seconds(), Peak: most}, nil
}

// lastWords keeps the end of what a program said, for when it fails.
type lastWords struct{ b []byte }

func (l *lastWords) Write(p []byte) (int, error) {
	const most = 4 << 10
	l.b = append(l.b, p...)
	if len(l.b) > most {
		l.b = append(l.b[:0], l.b[len(l.b)-most:]...)
	}
	return len(p), nil
}

func (l *lastWords) err() error {
	if b := bytes.TrimSpace(l.b); len(b) > 0 {
		return fmt.Errorf("it said:\n%s", b)
	}
	return nil
}
