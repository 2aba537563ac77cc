//go:build linux

package e2e

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
	"testing"
	"time"
)

// settings is a configuration file with a state of its own.
type settings struct {
	dir  string
	file string
}

// newSettings writes the configuration that the parts make up; agent is more
// keys for [agent].
func newSettings(t *testing.T, agent string, parts ...string) *settings {
	t.Helper()
	dir := t.TempDir()
	s := &settings{dir: dir, file: filepath.Join(dir, "trailpoll.toml")}
	s.write(t, agent, parts...)
	return s
}

func (s *settings) write(t *testing.T, agent string, parts ...string) {
	t.Helper()
	text := fmt.Sprintf("[agent]\nstate_dir = %q\n%s\n%s", s.state(), agent, strings.Join(parts, "\n"))
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *settings) state() string { return filepath.Join(s.dir, "state") }

// source is a [[source]] over a bucket from the beginning of 2023 on. In lines,
// keys are added to it.
func source(name string, b *bucket, prefix, lines string) string {
	return fmt.Sprintf(`
[[source]]
name = %q
bucket = %q
prefix = %q
region = %q
endpoint = %q
path_style = true
start = "2023-01-01"
refresh = "1s"
idle_refresh = "1s"
discovery = "2s"
%s
[source.credentials]
type = "static"
access_key_id = %q
secret_access_key = "env:`+secretInEnv+`"
`, name, b.name, prefix, homeRegion, b.server.endpoint, lines, accessKey)
}

// child is a run of the program.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout bytes.Buffer // to be read after it has ended
	log    lines
	ended  chan struct{}
}

// start runs the program with the configuration.
func (s *settings) start(t *testing.T, args ...string) *child {
	t.Helper()
	c := &child{t: t, ended: make(chan struct{})}
	c.cmd = exec.Command(program(t), append(slices.Clone(args), "--config", s.file)...)
	c.cmd.Dir = s.dir
	c.cmd.Env = []string{
		"HOME=" + s.dir, "PATH=/nonexistent", "AWS_EC2_METADATA_DISABLED=true",
		secretInEnv + "=" + secretKey, tokenInEnv + "=" + token,
		"TRAILPOLL_E2E_WRONG=" + wrongSecret,
	}
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(c.finish)
	return c
}

// wrongSecret is a secret that opens nothing, and must not be seen either.
const wrongSecret = "a-wrong-secret-that-nobody-may-see"

// finish ends the child and holds what it printed against invariants 10 and
// 11: no secret, and each line of the log a JSON object.
func (c *child) finish() {
	c.kill()
	all := append(c.log.bytes(), c.stdout.Bytes()...)
	for _, secret := range []string{secretKey, token, wrongSecret} {
		if bytes.Contains(all, []byte(secret)) {
			c.t.Errorf("invariant 10: %q was printed", secret)
		}
	}
	for _, line := range c.log.whole() {
		if !json.Valid([]byte(line)) && !strings.HasPrefix(line, "trailpoll: ") {
			c.t.Errorf("invariant 11: no line of the log: %q", line)
		}
	}
	if c.t.Failed() || os.Getenv("TRAILPOLL_TEST_LOG") != "" {
		last := c.log.whole()
		if n := len(last) - 40; n > 0 {
			last = last[n:]
		}
		c.t.Logf("the last lines of %v:\n%s", c.cmd.Args[1:], strings.Join(last, ""))
	}
}

// kill is kill -9. It returns when the process is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// wait returns the exit code of a child that ends by itself.
func (c *child) wait(most time.Duration) int {
	c.t.Helper()
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	select {
	case <-c.ended:
		return c.cmd.ProcessState.ExitCode()
	case <-deadline.C:
		c.signal(syscall.SIGQUIT) // so that the log shows where it stands
		<-c.ended
		c.t.Fatalf("%v did not end within %v", c.cmd.Args[1:], most)
		return -1
	}
}

// code runs the program to its end and fails the test if it does not exit with
// the code.
func (s *settings) code(t *testing.T, want int, most time.Duration, args ...string) *child {
	t.Helper()
	c := s.start(t, args...)
	if got := c.wait(most); got != want {
		t.Fatalf("%v: exit %d, want %d", args, got, want)
	}
	return c
}

// peak is the most memory that the running child had in RAM, in bytes.
func (c *child) peak() int64 {
	c.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	c.t.Fatal("the system does not say how much memory it was")
	return 0
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

// entry is a line of the log, as far as the tests look at it.
type entry struct {
	Level   string `json:"level"`
	Message string `json:"message"`
	Source  string `json:"source"`
	Output  string `json:"output"`
	Trouble string `json:"trouble"`
	Kind    string `json:"kind"`
	Error   string `json:"error"`
	Remedy  string `json:"remedy"`

	Position   string `json:"position"`
	Stream     string `json:"stream"`
	Reason     string `json:"reason"`
	Record     *int   `json:"record"`
	Unfinished string `json:"unfinished"`
}

// entries returns the lines with a message, or all if it is "".
func (c *child) entries(message string) (found []entry) {
	for _, line := range c.log.whole() {
		var e entry
		if json.Unmarshal([]byte(line), &e) == nil && (message == "" || e.Message == message) {
			found = append(found, e)
		}
	}
	return found
}

// says reports whether the log has a line with the message.
func (c *child) says(message string) bool { return len(c.entries(message)) > 0 }
