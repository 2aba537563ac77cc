package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/config"
)

func newConfigCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Write a first configuration, validate one, or print a commented example", Args: cobra.NoArgs, RunE: help}
	var sample string
	var asJSON bool
	validate := &cobra.Command{
		Use:   "validate",
		Short: "Say all that is wrong with the configuration",
		Long: "Say all that is wrong with the configuration.\n\n" +
			"With --filter-sample it also says what each filter would do to the records of a\n" +
			"CloudTrail log file, .json.gz as it is in S3 or unpacked.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := load(c)
			if err != nil {
				return err
			}
			if sample != "" {
				return showFilterSample(c, conf, sample, asJSON)
			}
			if asJSON {
				return errors.New("--json goes with --filter-sample")
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "the configuration is valid: %s, %s\n",
				plural(len(conf.Sources), "source"), plural(len(conf.Outputs), "output"))
			return failed(err)
		},
	}
	validate.Flags().StringVar(&sample, "filter-sample", "", "a log `FILE` to try the filters on")
	validate.Flags().BoolVar(&asJSON, "json", false, "with --filter-sample: print JSON")
	c.AddCommand(newInitCommand(), validate, &cobra.Command{
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
