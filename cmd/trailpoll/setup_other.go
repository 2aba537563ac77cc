//go:build !windows

package main

import "github.com/spf13/cobra"

// addSetup adds nothing: the packages of other systems set the service up
// themselves.
func addSetup(*cobra.Command) {}
