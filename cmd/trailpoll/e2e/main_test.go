//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/runtest"
)

// shared is what the tests of a run share: the program, built once, and one S3
// server. TestMain ends it.
var shared struct {
	dir     string
	program func() (string, error)
	server  func() (*gateway, error)
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "trailpoll-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		shared.dir = dir
		shared.program = sync.OnceValues(func() (string, error) {
			return runtest.Build(context.Background(), dir)
		})
		var running *gateway
		shared.server = sync.OnceValues(func() (g *gateway, err error) {
			running, err = startGateway(filepath.Join(dir, "s3"))
			return running, err
		})
		defer func() {
			if running != nil {
				running.stop()
			}
		}()
		return m.Run()
	}())
}

// program returns the path of the built program.
func program(t *testing.T) string {
	t.Helper()
	path, err := shared.program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// server returns the S3 server, and skips the test where there is none.
func server(t *testing.T) *gateway {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real S3 server and a while: not with -short")
	}
	g, err := shared.server()
	if errors.Is(err, errNoGateway) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// await waits until done holds and fails the test if it does not in time.
func await(t *testing.T, most time.Duration, what string, done func() bool) {
	t.Helper()
	if !within(most, done) {
		t.Fatalf("%s: not within %v", what, most)
	}
}

// within waits until done holds and reports whether it did in time.
func within(most time.Duration, done func() bool) bool {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-look.C:
		case <-deadline.C:
			return done()
		}
	}
	return true
}
