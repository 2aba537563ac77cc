//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/runtest"
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
	*runtest.Process
	t *testing.T
}

// start runs the program with the configuration.
func (s *settings) start(t *testing.T, args ...string) *child {
	t.Helper()
	p, err := runtest.Start(runtest.Config{
		Program: program(t), Dir: s.dir, Args: append(slices.Clone(args), "--config", s.file),
		Env:     []string{secretInEnv + "=" + secretKey, tokenInEnv + "=" + token, "TRAILPOLL_E2E_WRONG=" + wrongSecret},
		Secrets: []string{secretKey, token, wrongSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &child{Process: p, t: t}
	t.Cleanup(c.finish)
	return c
}

// wrongSecret is a secret that opens nothing, and must not be seen either.
const wrongSecret = "a-wrong-secret-that-nobody-may-see"

// finish ends the child and holds what it printed against invariants 10 and 11.
func (c *child) finish() {
	c.Kill()
	for _, wrong := range c.Wrong() {
		c.t.Error(wrong)
	}
	if c.t.Failed() || os.Getenv("TRAILPOLL_TEST_LOG") != "" {
		c.t.Logf("the last lines of %v:\n%s", c.Args(), c.Last(40))
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if !c.Signal(s) {
		c.t.Fatalf("%v has ended", c.Args())
	}
}

// wait returns the exit code of a child that ends by itself.
func (c *child) wait(most time.Duration) int {
	c.t.Helper()
	code, late := c.Wait(most)
	if late {
		c.t.Fatalf("%v did not end within %v", c.Args(), most)
	}
	return code
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
	for _, line := range c.Lines() {
		var e entry
		if json.Unmarshal([]byte(line), &e) == nil && (message == "" || e.Message == message) {
			found = append(found, e)
		}
	}
	return found
}

// says reports whether the log has a line with the message.
func (c *child) says(message string) bool { return len(c.entries(message)) > 0 }
