package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"

	acl "github.com/trailpoll/trailpoll/installer/windows"
)

// markerKey is where an upgrade notes that the service ran.
const (
	markerKey  = `SOFTWARE\trailpoll`
	markerName = "StartAfterUpgrade"
)

// addSetup adds what the MSI calls, which is not for people.
func addSetup(parent *cobra.Command) {
	var from string
	setup := &cobra.Command{Use: "setup", Hidden: true, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		path, err := c.Flags().GetString("config")
		if err != nil {
			return err
		}
		return failed(setUp(c.OutOrStdout(), path, from))
	}}
	setup.Flags().StringVar(&from, "config-from", "-", "")
	var upgrade bool
	teardown := &cobra.Command{Use: "teardown", Hidden: true, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return failed(tearDown(c.OutOrStdout(), upgrade))
	}}
	teardown.Flags().BoolVar(&upgrade, "upgrade", false, "")
	// What "sc control trailpoll paramchange" does, without sc.
	change := &cobra.Command{Use: "reload", Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		s, done, err := openService()
		if err != nil {
			return failed(notInstalled(err))
		}
		defer done()
		_, err = s.Control(svc.ParamChange)
		return failed(err)
	}}
	parent.AddCommand(setup, teardown, change)
}

// setUp installs the service, or what an upgrade left of it, and starts it if
// it ran before, or if it is new and has a configuration.
func setUp(out io.Writer, path, from string) error {
	i := &installation{out: out, path: path}
	undo := func(err error) error {
		for n := len(i.undo) - 1; n >= 0; n-- {
			i.undo[n]()
		}
		return err
	}
	var err error
	if i.program, err = programPath(); err != nil {
		return err
	}
	if err := i.protect(filepath.Dir(path)); err != nil {
		return undo(err)
	}
	if from != "-" && from != "" {
		if err := i.take(from); err != nil {
			return undo(err)
		}
	}
	_, err = os.Stat(path)
	start := err == nil
	if s, done, err := openService(); err == nil {
		done()
		_ = s
		start = takeMarker()
		if err := i.settings(); err != nil {
			return err
		}
	} else if err := i.install(); err != nil {
		return undo(err)
	}
	if start {
		// A configuration that is wrong is no reason to take the program away
		// again: the event log says what is wrong with it.
		if err := startService(out); err != nil {
			i.say("note: %v", err)
		}
	}
	return nil
}

// take copies a configuration to its place, unless one is there.
func (i *installation) take(from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("reading the configuration that CONFIG names: %w", err)
	}
	f, err := os.OpenFile(i.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	i.onFailure(func() { _ = os.Remove(i.path) })
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return setRights(i.path, acl.ConfigSDDL(serviceName))
}

// tearDown removes the service, or before an upgrade only notes whether it
// runs: the MSI stops it then.
func tearDown(out io.Writer, upgrade bool) error {
	if !upgrade {
		_ = registry.DeleteKey(registry.LOCAL_MACHINE, markerKey) // it need not be there
		return uninstallService(out)
	}
	s, done, err := openService()
	if err != nil {
		return err
	}
	defer done()
	if st, err := s.Query(); err != nil || st.State != svc.Running && st.State != svc.StartPending {
		return err
	}
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, markerKey, registry.SET_VALUE)
	if err != nil {
		return err
	}
	return errors.Join(k.SetDWordValue(markerName, 1), k.Close())
}

// takeMarker reports whether the service ran before the upgrade, and forgets it.
func takeMarker() bool {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, markerKey, registry.QUERY_VALUE)
	if err != nil {
		return false
	}
	n, _, err := k.GetIntegerValue(markerName)
	_ = k.Close()
	_ = registry.DeleteKey(registry.LOCAL_MACHINE, markerKey) // at worst a later upgrade starts the service
	return err == nil && n == 1
}
