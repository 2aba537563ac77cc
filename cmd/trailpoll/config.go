package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/config"
)

func newConfigCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Validate the configuration, or print a commented example", Args: cobra.NoArgs, RunE: help}
	c.AddCommand(&cobra.Command{
		Use:   "validate",
		Short: "Say all that is wrong with the configuration",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := load(c)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "the configuration is valid: %d sources, %d outputs\n",
				len(conf.Sources), len(conf.Outputs))
			return failed(err)
		},
	}, &cobra.Command{
		Use:   "example",
		Short: "Print an example that shows every key with its default",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), config.Example())
			return failed(err)
		},
	})
	return c
}

// failed makes exit code 1 of an error.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitFailed, err}
}
