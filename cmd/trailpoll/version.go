package main

import (
	"crypto/fips140"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker for a release.
var version = ""

// build is what is known of the program itself.
type build struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	FIPS    bool   `json:"fips_140"`
	Module  string `json:"fips_140_module,omitempty"` // of Go's cryptography, while FIPS is on
}

func thisBuild() build {
	b := build{
		Schema: 1, Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		FIPS: fips140.Enabled(),
	}
	if b.FIPS {
		b.Module = fips140.Version()
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "development"
	}
	return b
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go version and whether FIPS 140-3 mode is on",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b := thisBuild()
			if asJSON {
				return failed(json.NewEncoder(c.OutOrStdout()).Encode(b))
			}
			fips := "off"
			if b.FIPS {
				fips = "on, module " + b.Module
			}
			commit := b.Commit
			if commit == "" {
				commit = "unknown"
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "trailpoll %s\ncommit    %s\ngo        %s %s/%s\nFIPS mode %s\n",
				b.Version, commit, b.Go, b.OS, b.Arch, fips)
			return failed(err)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}
