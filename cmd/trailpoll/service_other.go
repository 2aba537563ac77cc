//go:build !windows && !linux

package main

import (
	"fmt"
	"io"
)

const whereLogIs = "the log says why"

// install lets the library register the service. This is not tested.
func (i *installation) install() error {
	s, err := libraryService(i, "")
	if err != nil {
		return err
	}
	i.say("note: services of %s are not tested; the service runs as root", s.Platform())
	return s.Install()
}

func uninstallService(out io.Writer) error {
	if _, err := serviceState(); err != nil {
		return notInstalled(err)
	}
	s, err := libraryService(nil, "")
	if err != nil {
		return err
	}
	_ = s.Stop() // it may not run
	if err := s.Uninstall(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "the service is removed; configuration and state stay")
	return err
}

func serviceState() (string, error) {
	s, err := libraryService(nil, "")
	if err != nil {
		return "", err
	}
	return libraryState(s)
}
