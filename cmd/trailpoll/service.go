package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/kardianos/service"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// The service, as its manager shows it. Its name is serviceName's on Windows,
// and the unit's on Linux.
const (
	serviceUnit  = "trailpoll"
	serviceTitle = "trailpoll"
	serviceText  = "Brings CloudTrail logs from S3 to a SIEM by listing the bucket."
)

func newServiceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "service",
		Short: "Install, remove and control the service",
		Long: "Install, remove and control trailpoll as a service of systemd or of Windows. The packages\n" +
			"install the service themselves; this is for the program alone. Needs root, or an administrator.\n\n" +
			"Other service managers (launchd, OpenRC, rc.d, SysV) are served as far as the library goes\n" +
			"that knows them; that is not tested.",
		Args: cobra.NoArgs, RunE: help,
	}
	var unchecked, asJSON bool
	install := &cobra.Command{
		Use:   "install",
		Short: "Register the service, to be started with the machine",
		Long: "Register the service, to be started with the machine, with the configuration that --config\n" +
			"names. It runs as a user of its own that can read the configuration and write its state and\n" +
			"nothing else. If anything fails, all is as it was before.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return installService(c, unchecked)
		},
	}
	install.Flags().BoolVar(&unchecked, "unchecked", false, "install although the configuration has problems here, e.g. when a secret is in the service's environment only")
	status := &cobra.Command{
		Use:   "status",
		Short: "Say whether the service is installed and runs",
		Long:  "Say whether the service is installed and runs. The exit code is 0 if it runs, and 1 if not.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return sayService(c.OutOrStdout(), asJSON)
		},
	}
	status.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.AddCommand(install, status)
	addSetup(c)
	for _, x := range []struct {
		use, short string
		do         func(io.Writer) error
	}{
		{"uninstall", "Stop the service and remove it; configuration and state stay", uninstallService},
		{"start", "Start the service", startService},
		{"stop", "Stop the service in order", stopService},
		{"restart", "Stop the service in order and start it again", restartService},
	} {
		c.AddCommand(&cobra.Command{Use: x.use, Short: x.short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			if err := mayControl(); err != nil {
				return failed(err)
			}
			if err := x.do(c.OutOrStdout()); err != nil {
				return failed(err)
			}
			return nil
		}})
	}
	return c
}

// installation is a service that is being installed.
type installation struct {
	program string         // the program, an absolute path without links
	path    string         // the configuration, an absolute path
	conf    *config.Config // nil if it has problems and that was accepted
	out     io.Writer
	undo    []func()
}

// onFailure notes how to take a step back.
func (i *installation) onFailure(f func()) { i.undo = append(i.undo, f) }

func (i *installation) say(format string, args ...any) { fmt.Fprintf(i.out, format+"\n", args...) }

// stateDir is where the agent keeps its state.
func (i *installation) stateDir() string {
	if i.conf == nil {
		return stateDirIn(i.path)
	}
	return i.conf.Agent.StateDir
}

func installService(c *cobra.Command, unchecked bool) error {
	if err := mayControl(); err != nil {
		return failed(err)
	}
	switch _, err := serviceState(); {
	case err == nil:
		return failed(&fault.Error{Op: "installing the service", Err: errors.New("it is installed already"),
			Hint: "control it with trailpoll service start, stop and restart; to install it anew, run trailpoll service uninstall first"})
	case !errors.Is(err, service.ErrNotInstalled):
		return failed(fmt.Errorf("asking for the service: %w", err))
	}
	path, err := c.Flags().GetString("config")
	if err != nil {
		return err
	}
	i := &installation{out: c.OutOrStdout()}
	if i.path, err = filepath.Abs(path); err != nil {
		return failed(err)
	}
	if i.program, err = programPath(); err != nil {
		return failed(err)
	}
	if i.conf, err = load(c); err != nil && !unchecked {
		return err
	}
	if err := i.install(); err != nil {
		for n := len(i.undo) - 1; n >= 0; n-- {
			i.undo[n]()
		}
		return failed(fmt.Errorf("installing the service, of which nothing is left: %w", err))
	}
	i.say("the service is installed and will start with the machine; start it now with: trailpoll service start")
	return nil
}

// state of the service, as words for people and programs.
const (
	stateRuns   = "running"
	stateStops  = "stopped"
	stateFailed = "failed"
	stateNone   = "not installed"
)

func sayService(out io.Writer, asJSON bool) error {
	state, err := serviceState()
	if errors.Is(err, service.ErrNotInstalled) {
		state, err = stateNone, nil
	}
	if err != nil {
		return failed(fmt.Errorf("asking for the service: %w", err))
	}
	if asJSON {
		err = json.NewEncoder(out).Encode(struct {
			Schema    int    `json:"schema"`
			Installed bool   `json:"installed"`
			State     string `json:"state"`
		}{1, state != stateNone, state})
	} else {
		_, err = fmt.Fprintln(out, state)
	}
	if err != nil {
		return failed(err)
	}
	if state != stateRuns {
		return &exitError{code: exitFailed}
	}
	return nil
}

// libraryState asks the library for the service's state.
func libraryState(s service.Service) (string, error) {
	st, err := s.Status()
	switch {
	case err != nil:
		return "", err
	case st == service.StatusRunning:
		return stateRuns, nil
	default:
		return stateStops, nil
	}
}

// notInstalled makes an error that says what to do of the library's.
func notInstalled(err error) error {
	if errors.Is(err, service.ErrNotInstalled) {
		return &fault.Error{Op: "asking for the service", Err: errors.New("it is not installed"),
			Hint: "install it with trailpoll service install --config FILE, or with a package"}
	}
	return err
}

// idle is a program that the library wants in order to speak of its service.
type idle struct{}

func (idle) Start(service.Service) error { return nil }
func (idle) Stop(service.Service) error  { return nil }
