//go:build !windows

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kardianos/service"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// libraryService is the service as the library sees it. unit is the text of
// the unit to install; "" = the library's own.
func libraryService(i *installation, unit string) (service.Service, error) {
	conf := &service.Config{Name: serviceUnit, DisplayName: serviceTitle, Description: serviceText}
	if i != nil {
		conf.Executable, conf.Arguments = i.program, []string{"run", "--config", i.path}
		if unit != "" {
			conf.Option = service.KeyValue{"SystemdScript": unit}
		}
	}
	s, err := service.New(idle{}, conf)
	if err != nil {
		return nil, &fault.Error{Op: "looking for a service manager", Err: err,
			Hint: "there is none here that is known; start trailpoll run by what starts things on this machine"}
	}
	return s, nil
}

func mayControl() error {
	if os.Geteuid() != 0 {
		return &fault.Error{Op: "controlling the service", Err: errors.New("this needs root"), Hint: "run the command with sudo"}
	}
	return nil
}

// programPath returns the path of the program, and an error where a service
// could not start it or where others than root could replace it.
func programPath() (string, error) {
	path, err := os.Executable()
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", fmt.Errorf("finding the program: %w", err)
	}
	const remedy = "install it with: install -m 0755 trailpoll /usr/local/bin/trailpoll; then run /usr/local/bin/trailpoll service install"
	if place := hidden(path); place != "" {
		return "", &fault.Error{Op: "looking at the program", Hint: remedy,
			Err: fmt.Errorf("%s is in %s, where a service does not see it", path, place)}
	}
	for p := path; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			return "", fmt.Errorf("looking at the program: %w", err)
		}
		others := info.Mode().Perm()&0o022 != 0 && (info.Mode()&os.ModeSticky == 0 || p == path)
		if owner(info) > 0 || others {
			return "", &fault.Error{Op: "looking at the program", Hint: remedy,
				Err: fmt.Errorf("others than root can write to %s, and so decide what the service runs", p)}
		}
		if p == filepath.Dir(p) {
			return path, nil
		}
	}
}

// hidden returns the directory that keeps a path from the service's eyes, ""
// if none does.
func hidden(path string) string {
	for _, dir := range []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"} {
		if strings.HasPrefix(path, dir+"/") {
			return dir
		}
	}
	return ""
}

func startService(out io.Writer) error {
	return orderService(out, "started", service.Service.Start)
}

func stopService(out io.Writer) error {
	return orderService(out, "stopped", service.Service.Stop)
}

func restartService(out io.Writer) error {
	return orderService(out, "started again", service.Service.Restart)
}

func orderService(out io.Writer, done string, do func(service.Service) error) error {
	if _, err := serviceState(); err != nil {
		return notInstalled(err)
	}
	s, err := libraryService(nil, "")
	if err != nil {
		return err
	}
	if err := do(s); err != nil {
		return &fault.Error{Op: "controlling the service", Err: oneLine(err), Hint: whereLogIs}
	}
	_, err = fmt.Fprintf(out, "the service has been %s\n", done)
	return err
}

// oneLine joins the lines that a command has said.
func oneLine(err error) error {
	return errors.New(strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), " "))
}
