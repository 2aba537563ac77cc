//go:build linux

package torture

import (
	"fmt"
	"path/filepath"

	"github.com/trailpoll/trailpoll/agent/agenttest/runtest"
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
	*runtest.Process
	run int
}

// begin runs the program with a configuration file, in a world of its own.
func begin(program, file, temp string, w world, run int, args ...string) (*child, error) {
	dir := filepath.Dir(file)
	p, err := runtest.Start(runtest.Config{
		Program: program, Dir: dir, Args: append(args, "--config", file),
		Env: []string{
			secretInEnv + "=" + secretKey, tokenInEnv + "=" + token, fmt.Sprintf("%s=%d", runInEnv, run), "TMPDIR=" + temp,
		},
		Secrets: []string{secretKey, token}, Mounts: w.mounts, Before: w.before,
	})
	if err != nil {
		return nil, err
	}
	return &child{Process: p, run: run}, nil
}

// world is what is special about the system that the agent runs in.
type world struct {
	mounts bool
	before string // what a shell does first
}

// add has the shell do one thing more.
func (w *world) add(format string, args ...any) { w.before += fmt.Sprintf(format, args...) + "\n" }
