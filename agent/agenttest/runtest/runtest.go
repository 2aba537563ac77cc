//go:build linux

package runtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Build builds the program into a directory, as it ships: without cgo. It
// returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "trailpoll")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/trailpoll/trailpoll/cmd/trailpoll") //nolint:gosec // the path is the test's own
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return path, nil
}

// Config says how the program is run.
type Config struct {
	// Program is its path.
	Program string
	// Dir is where it runs, and its home.
	Dir  string
	Args []string
	// Env is added to the little that it gets: HOME, a PATH with nothing in it,
	// and no metadata service.
	Env []string
	// Secrets must not be in what it prints.
	Secrets []string
	// Mounts gives it mounts of its own. Only root can.
	Mounts bool
	// Before is what a shell does first, in the program's place: join a group,
	// mount a file over another. "" = nothing.
	Before string
}

// Process is a run of the program. Its methods may be called from any goroutine,
// but Stdout is to be read after the end.
type Process struct {
	Stdout bytes.Buffer

	cfg   Config
	cmd   *exec.Cmd
	log   lines
	ended chan struct{}

	mu         sync.Mutex
	peak, anon int64
}

// Start runs the program. It dies with the thread that started it, at the
// latest; the caller is to end it with Kill.
func Start(cfg Config) (*Process, error) {
	p := &Process{cfg: cfg, ended: make(chan struct{})}
	name, args := cfg.Program, cfg.Args
	if cfg.Before != "" {
		name, args = "/bin/sh", append([]string{"-c", "set -e\n" + cfg.Before + "\nexec \"$0\" \"$@\"", name}, args...)
	}
	p.cmd = exec.Command(name, args...) //nolint:gosec // what is run is the test's own
	p.cmd.Dir = cfg.Dir
	p.cmd.Env = append([]string{"HOME=" + cfg.Dir, "PATH=/nonexistent", "AWS_EC2_METADATA_DISABLED=true"}, cfg.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.Stdout, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if cfg.Mounts {
		p.cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Program, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Args are what the program was started with.
func (p *Process) Args() []string { return p.cfg.Args }

// Ended is closed when the process is gone.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Gone reports whether the process is.
func (p *Process) Gone() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Code is the exit code; -1 if the process was killed. It waits for the end.
func (p *Process) Code() int {
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// Kill is kill -9. It returns when the process is gone.
func (p *Process) Kill() {
	p.Measure()
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Signal reports false if the process is gone.
func (p *Process) Signal(s syscall.Signal) bool { return p.cmd.Process.Signal(s) == nil }

// Wait returns the exit code of a process that ends by itself. If it does not
// in time it is made to print where it stands; then late is true.
func (p *Process) Wait(most time.Duration) (code int, late bool) {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-p.ended:
			return p.Code(), late
		case <-look.C:
			p.Measure()
		case <-deadline.C:
			if late { // not even that: it is stopped, or does not get at its memory
				p.Kill()
				break
			}
			late = true
			p.Signal(syscall.SIGQUIT)
			deadline.Reset(10 * time.Second)
		}
	}
}

// Measure notes the most memory that the running process had so far, and
// returns it: bytes in RAM.
func (p *Process) Measure() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid())); err == nil {
		for line := range strings.Lines(string(status)) {
			var kib int64
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
				p.peak = max(p.peak, kib<<10)
			}
			if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
				p.anon = max(p.anon, kib<<10)
			}
		}
	}
	return p.peak
}

// Anonymous is the most that Measure saw of the process's memory that is no
// file's: without the program itself and the pages of the state. Bytes.
func (p *Process) Anonymous() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.anon
}

// Files is how many files the process has open; 0 if that can't be known.
func (p *Process) Files() int {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	if err != nil {
		return 0
	}
	return len(all)
}

// LimitFiles sets how many files the process may have open.
func (p *Process) LimitFiles(n uint64) error {
	var old unix.Rlimit
	if err := unix.Prlimit(p.Pid(), unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return fmt.Errorf("asking for the limit of open files: %w", err)
	}
	limit := unix.Rlimit{Cur: min(n, old.Max), Max: old.Max}
	if err := unix.Prlimit(p.Pid(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return fmt.Errorf("limiting open files: %w", err)
	}
	return nil
}

// Wrong is what the process printed against invariants 10 and 11: a secret, or
// a line of the log that is no JSON object. To be asked after the end.
func (p *Process) Wrong() (all []string) {
	text := append(p.log.bytes(), p.Stdout.Bytes()...)
	for _, secret := range p.cfg.Secrets {
		if bytes.Contains(text, []byte(secret)) {
			all = append(all, fmt.Sprintf("invariant 10: %q was printed", secret))
		}
	}
	for _, line := range p.Lines() {
		if !json.Valid([]byte(line)) && !strings.HasPrefix(line, "trailpoll: ") {
			all = append(all, fmt.Sprintf("invariant 11: no line of the log: %.300q", line))
			if len(all) > 5 {
				return all
			}
		}
	}
	return all
}

// Log is all of the log.
func (p *Process) Log() []byte { return p.log.bytes() }

// Lines are the lines of the log that came to their ends.
func (p *Process) Lines() []string {
	all := strings.SplitAfter(string(p.log.bytes()), "\n")
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasSuffix(s, "\n") })
}

// Last is the end of the log, long lines shortened.
func (p *Process) Last(n int) string {
	all := p.Lines()
	all = all[max(0, len(all)-n):]
	for i, line := range all {
		if len(line) > 400 {
			all[i] = line[:400] + "…\n"
		}
	}
	return strings.Join(all, "")
}

// lines collects what is written to it.
type lines struct {
	mu  sync.Mutex
	all []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, b...)
	return len(b), nil
}

func (l *lines) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}
