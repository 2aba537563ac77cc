package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kardianos/service"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/installer/systemd"
)

const (
	serviceUser = "trailpoll"
	secretsDir  = "/etc/trailpoll/secrets" //nolint:gosec // a directory
	unitPath    = "/etc/systemd/system/" + serviceUnit + ".service"
	whereLogIs  = "see why with: journalctl -u trailpoll -n 20 --no-pager"
)

// underSystemd reports whether systemd runs this machine.
func underSystemd() bool {
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// serviceState asks systemd. What the library would say of a failed service is
// that it does not know.
func serviceState() (string, error) {
	if !underSystemd() {
		s, err := libraryService(nil, "")
		if err != nil {
			return "", err
		}
		return libraryState(s)
	}
	shown, err := command("systemctl", "show", "-p", "LoadState,ActiveState", serviceUnit+".service")
	if err != nil {
		return "", err
	}
	return unitState(shown)
}

// unitState reads what systemctl show prints.
func unitState(shown string) (string, error) {
	values := map[string]string{}
	for line := range strings.Lines(shown) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[name] = value
		}
	}
	switch values["LoadState"] {
	case "not-found", "":
		return "", service.ErrNotInstalled
	}
	switch values["ActiveState"] {
	case "active", "activating", "reloading", "deactivating":
		return stateRuns, nil
	case "failed":
		return stateFailed, nil
	}
	return stateStops, nil
}

// command runs a command of the system and returns what it prints.
func command(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // all callers name a command of the system
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=")
	out, err := cmd.Output()
	if err != nil {
		text := ""
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			text = strings.TrimSpace(string(e.Stderr))
		}
		return "", oneLine(fmt.Errorf("%s %s: %w %s", name, args[0], err, text))
	}
	return string(out), nil
}

func (i *installation) install() error {
	if !underSystemd() {
		s, err := libraryService(i, "")
		if err != nil {
			return err
		}
		i.say("note: services of %s are not tested; the service runs as root", s.Platform())
		return s.Install()
	}
	if place := hidden(i.path); place != "" {
		return &fault.Error{Op: "looking at the configuration", Err: fmt.Errorf("%s is in %s, where a service does not see it", i.path, place),
			Hint: "put it at " + config.DefaultPath()}
	}
	unit := systemd.Unit{Program: i.program, Config: i.path, Writable: i.writable()}
	text, err := unit.Text()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(unitPath); err == nil {
		return &fault.Error{Op: "writing the unit", Err: fmt.Errorf("%s is there already", unitPath), Hint: "remove it, then run systemctl daemon-reload"}
	}
	uid, gid, err := i.account()
	if err != nil {
		return err
	}
	if err := i.directories(uid, gid); err != nil {
		return err
	}
	if err := i.readable(gid); err != nil {
		return err
	}
	s, err := libraryService(i, text)
	if err != nil {
		return err
	}
	i.onFailure(func() {
		_, _ = command("systemctl", "disable", serviceUnit)
		_ = os.Remove(unitPath)
		_, _ = command("systemctl", "daemon-reload")
	})
	if err := s.Install(); err != nil {
		return oneLine(err)
	}
	return nil
}

// writable returns the directories that the configuration makes the agent
// write to.
func (i *installation) writable() []string {
	dirs := []string{i.stateDir()}
	if i.conf != nil {
		if f := i.conf.Agent.LogFile; f != "" {
			dirs = append(dirs, filepath.Dir(f))
		}
		for _, o := range i.conf.Outputs {
			if o.Type == config.TypeFile && o.Enabled {
				dirs = append(dirs, filepath.Dir(o.File.Path))
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// account finds the service's user, or makes it.
func (i *installation) account() (uid, gid int, err error) {
	u, err := user.Lookup(serviceUser)
	if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
		if _, err := command("useradd", "--system", "--user-group", "--no-create-home",
			"--home-dir", "/var/lib/trailpoll", "--shell", "/usr/sbin/nologin", serviceUser); err != nil {
			return 0, 0, &fault.Error{Op: "making the user " + serviceUser, Err: err, Hint: "make it yourself, as a system user with a group of the same name"}
		}
		i.onFailure(func() { _, _ = command("userdel", serviceUser) })
		i.say("made the user %s", serviceUser)
		u, err = user.Lookup(serviceUser)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("finding the user %s: %w", serviceUser, err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// directories makes those that systemd does not make.
func (i *installation) directories(uid, gid int) error {
	if made, err := makeDirs(secretsDir, 0o700, 0, 0); err != nil {
		return err
	} else if made {
		i.onFailure(func() { _ = os.Remove(secretsDir); _ = os.Remove(filepath.Dir(secretsDir)) })
	}
	for _, dir := range i.writable() {
		if systemd.Own(dir) {
			continue
		}
		made, err := makeDirs(dir, 0o700, uid, gid)
		if err != nil {
			return err
		}
		if made {
			i.onFailure(func() { _ = os.Remove(dir) })
			continue
		}
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if owner(info) != uid {
			return &fault.Error{Op: "looking at " + dir, Err: errors.New("the agent writes there, and it belongs to another user"),
				Hint: fmt.Sprintf("run: chown -R %s: %s", serviceUser, dir)}
		}
	}
	return nil
}

// makeDirs makes a directory for a user, and those above it for root. It
// reports whether it was missing.
func makeDirs(dir string, mode fs.FileMode, uid, gid int) (made bool, err error) {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return false, fmt.Errorf("%s is no directory", dir)
		}
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // the service's user has to get through
		return false, err
	}
	if err := os.Mkdir(dir, mode); err != nil {
		return false, err
	}
	return true, os.Chown(dir, uid, gid)
}

// readable lets the service's group read the configuration, and nobody else.
func (i *installation) readable(gid int) error {
	info, err := os.Stat(i.path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o004 != 0 || info.Mode().Perm()&0o040 != 0 && group(info) == gid {
		return nil
	}
	old, oldGroup := info.Mode().Perm(), group(info)
	i.onFailure(func() {
		_ = os.Chown(i.path, -1, oldGroup)
		_ = os.Chmod(i.path, old)
	})
	if err := os.Chown(i.path, -1, gid); err != nil {
		return err
	}
	if err := os.Chmod(i.path, old|0o040); err != nil {
		return err
	}
	i.say("the group %s may read %s now", serviceUser, i.path)
	return nil
}

func uninstallService(out io.Writer) error {
	if _, err := serviceState(); err != nil {
		return notInstalled(err)
	}
	if _, err := os.Lstat(unitPath); underSystemd() && errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Op: "removing the service", Err: errors.New("it belongs to a package"),
			Hint: "remove the package: apt remove trailpoll, or dnf remove trailpoll"}
	}
	s, err := libraryService(nil, "")
	if err != nil {
		return err
	}
	if err := s.Stop(); err != nil && underSystemd() {
		return &fault.Error{Op: "stopping the service", Err: oneLine(err), Hint: whereLogIs}
	}
	if err := s.Uninstall(); err != nil {
		return oneLine(err)
	}
	if underSystemd() {
		_, _ = command("systemctl", "reset-failed", serviceUnit) // it need not have failed
	}
	_, err = fmt.Fprintf(out, "the service is removed; what stays: the configuration, the state directory, /var/log/trailpoll and the user %s\n", serviceUser)
	return err
}
