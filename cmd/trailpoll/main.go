// Command trailpoll brings AWS CloudTrail logs from S3 to a SIEM by listing
// the bucket. This package wires the rooms together; each command has a file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// The exit codes, the same for all commands.
const (
	exitDone   = 0
	exitFailed = 1 // failed, or interrupted
	exitUsage  = 2 // wrong usage or configuration
	exitHeld   = 4 // another agent holds the state
)

// exitError is an error that decides the exit code.
type exitError struct {
	code int
	err  error // nil: all has been said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return "exit"
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// run runs one command and returns its exit code. Results go to stdout, logs
// and errors to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	// What cobra itself finds wrong is how the command was called.
	code := exitUsage
	if e, ok := errors.AsType[*exitError](err); ok {
		code = e.code
		if e.err == nil {
			return code
		}
	}
	if problems, ok := errors.AsType[config.Errors](err); ok {
		for _, p := range problems {
			fmt.Fprintln(stderr, p)
		}
		return code
	}
	fmt.Fprintf(stderr, "trailpoll: %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(stderr, "trailpoll: %s\n", hint)
	}
	return code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "trailpoll",
		Short: "CloudTrail logs from S3 to a SIEM: every record, provably, by listing the bucket",
		Long: "trailpoll lists an S3 bucket, finds every CloudTrail log file in it however late it appears,\n" +
			"and forwards each record unchanged over HTTPS or syslog. It needs read access and nothing else.\n\n" +
			"Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage or configuration,\n" +
			"3 check found a problem, 4 another agent holds the state.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          help,
	}
	root.PersistentFlags().String("config", config.DefaultPath(), "the configuration `FILE`")
	root.AddCommand(newRunCommand(), newCheckCommand(), newStatusCommand(), newParkedCommand(), newPlanCommand(), newResyncCommand(), newConfigCommand(), newReloadCommand(), newServiceCommand(), newRegionsCommand(), newVersionCommand())
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)", err, c.CommandPath())
	})
	return root
}

// help is what a command does that only has commands below it. Without it cobra
// would take an unknown one for a call for help, and exit 0.
func help(c *cobra.Command, _ []string) error { return failed(c.Help()) }

// load reads the configuration that --config names and prints its warnings.
func load(c *cobra.Command) (*config.Config, error) {
	path, err := c.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	conf, warnings, err := config.Load(path, judgeFilter)
	for _, w := range warnings {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %v\n", w)
	}
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return conf, nil
}
