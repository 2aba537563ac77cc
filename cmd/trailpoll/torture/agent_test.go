//go:build linux

package torture

import (
	"bytes"
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

const (
	accessKey   = "AKTORTURE"
	secretKey   = "the-secret-key-of-the-campaign"
	secretInEnv = "TRAILPOLL_TORTURE_SECRET"
	token       = "the-token-of-the-campaign"
	tokenInEnv  = "TRAILPOLL_TORTURE_TOKEN"
	runInEnv    = "TRAILPOLL_TORTURE_RUN" // its value travels in a header of each request
)

// child is a run of the program.
type child struct {
	run   int
	cmd   *exec.Cmd
	log   lines
	ended chan struct{}
	peak  int64 // the most memory that it was seen to have in RAM, bytes
}

// begin runs the program with a configuration file.
func begin(program, file string, run int, args ...string) (*child, error) {
	c := &child{run: run, ended: make(chan struct{})}
	c.cmd = exec.Command(program, append(args, "--config", file)...)
	c.cmd.Dir = filepath.Dir(file)
	c.cmd.Env = []string{
		"HOME=" + c.cmd.Dir, "PATH=/nonexistent", "AWS_EC2_METADATA_DISABLED=true",
		secretInEnv + "=" + secretKey, tokenInEnv + "=" + token, fmt.Sprintf("%s=%d", runInEnv, run),
	}
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the agent: %w", err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

func (c *child) gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// kill is kill -9. It returns when the process is gone.
func (c *child) kill() {
	c.measure()
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// signal reports false if the child is gone.
func (c *child) signal(s syscall.Signal) bool { return c.cmd.Process.Signal(s) == nil }

// wait returns the exit code of a child that ends by itself; late is true, and
// the log shows where it stood, if it did not in time.
func (c *child) wait(most time.Duration) (code int, late bool) {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-c.ended:
			return c.cmd.ProcessState.ExitCode(), late
		case <-look.C:
			c.measure()
		case <-deadline.C:
			late = true
			c.signal(syscall.SIGQUIT)
		}
	}
}

// measure notes the most memory that the running child had so far.
func (c *child) measure() {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return // gone
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			c.peak = max(c.peak, kib<<10)
		}
	}
}

// files is how many files the child has open; 0 if that can't be known.
func (c *child) files() int {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	return len(all)
}

// limitFiles sets how many files the child may have open.
func (c *child) limitFiles(n uint64) error {
	var old unix.Rlimit
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return fmt.Errorf("asking for the limit of open files: %w", err)
	}
	limit := unix.Rlimit{Cur: min(n, old.Max), Max: old.Max}
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return fmt.Errorf("limiting open files: %w", err)
	}
	return nil
}

// wrong is what the child printed against invariants 10 and 11: a secret, or a
// line that is no JSON object.
func (c *child) wrong() (all []string) {
	text := c.log.bytes()
	for _, secret := range []string{secretKey, token} {
		if bytes.Contains(text, []byte(secret)) {
			all = append(all, fmt.Sprintf("invariant 10: %q was printed", secret))
		}
	}
	for _, line := range c.log.whole() {
		if !json.Valid([]byte(line)) && !strings.HasPrefix(line, "trailpoll: ") {
			all = append(all, fmt.Sprintf("invariant 11: no line of the log: %.300q", line))
			if len(all) > 5 {
				return all
			}
		}
	}
	return all
}

// last returns the end of the log, long lines shortened.
func (c *child) last(n int) string {
	all := c.log.whole()
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

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, p...)
	return len(p), nil
}

func (l *lines) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// whole returns the lines that came to their ends.
func (l *lines) whole() []string {
	all := strings.SplitAfter(string(l.bytes()), "\n")
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasSuffix(s, "\n") })
}
