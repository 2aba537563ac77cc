package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
)

func newReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the running agent take the changed configuration",
		Long: "Make the running agent read its configuration file again. What is in flight is delivered\n" +
			"and settled first, then the agent works on with the new configuration. If anything is wrong\n" +
			"with it, the agent keeps the old one, and the exit code is 2. state_dir can't change.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := c.Flags().GetString("config")
			if err != nil {
				return err
			}
			// The agent judges the file, not this command, which may lack the
			// secrets that the agent has in its environment.
			dir := stateDirIn(path)
			client, err := control.Connect(c.Context(), dir)
			if errors.Is(err, control.ErrNoAgent) {
				return failed(&fault.Error{Op: "asking the agent of " + dir, Err: err,
					Hint: "start it: it reads its configuration then; or name the configuration it runs with by --config"})
			}
			if err != nil {
				return failed(err)
			}
			defer client.Close()
			err = client.Do(c.Context(), http.MethodPost, "/v1/reload", nil, nil)
			if e, ok := errors.AsType[*control.StatusError](err); ok && e.Status == http.StatusUnprocessableEntity {
				return &exitError{exitUsage, fmt.Errorf("the agent works on with the old configuration:\n%w", err)}
			}
			if err != nil {
				return failed(err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "the agent works with the changed configuration")
			return failed(err)
		},
	}
}

// stateDirIn returns the state directory that a configuration names, whatever
// else may be wrong with it: of broken TOML the part above the break counts.
func stateDirIn(path string) string {
	var file struct {
		Agent struct {
			StateDir string `toml:"state_dir"`
		} `toml:"agent"`
	}
	text, err := os.ReadFile(path)
	if err == nil {
		_, err = toml.Decode(string(text), &file)
	}
	if e, ok := errors.AsType[toml.ParseError](err); ok {
		lines := strings.SplitAfter(string(text), "\n")
		above := lines[:max(0, min(e.Position.Line-1, len(lines)))]
		_, _ = toml.Decode(strings.Join(above, ""), &file)
	}
	if file.Agent.StateDir == "" {
		return config.Default().Agent.StateDir
	}
	return file.Agent.StateDir
}
