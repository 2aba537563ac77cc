// Package systemd has the unit that the packages for Linux ship and that
// "trailpoll service install" writes with other paths in it.
package systemd

import (
	_ "embed"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
)

//go:embed trailpoll.service
var unit string

// The paths in the unit that the packages ship.
const (
	program  = "/usr/bin/trailpoll"
	conf     = "/etc/trailpoll/trailpoll.toml"
	secrets  = "/etc/trailpoll/secrets" //nolint:gosec // a directory
	stateDir = "/var/lib/trailpoll"
	logsDir  = "/var/log/trailpoll"
)

// Unit says what a unit is to be like. The zero Unit is the one that the
// packages ship.
type Unit struct {
	Program string // the program's path; "" = /usr/bin/trailpoll
	Config  string // the configuration's path; "" = /etc/trailpoll/trailpoll.toml
	Secrets string // the directory with secrets; "" = /etc/trailpoll/secrets
	// Writable are directories where the agent writes beside its own in
	// /var/lib and /var/log. One that is missing when the service starts stays
	// out of its reach.
	Writable []string
}

// Text returns the unit's text. A path must be absolute and clean, and hold
// neither control characters nor a quote or backslash, of which systemd would
// make something else.
func (u Unit) Text() (string, error) {
	text := unit
	for _, r := range []struct{ old, new string }{{program, u.Program}, {conf, u.Config}, {secrets, u.Secrets}} {
		if r.new == "" {
			continue
		}
		path, err := written(r.new)
		if err != nil {
			return "", err
		}
		text = strings.ReplaceAll(text, r.old+" ", path+" ")
		text = strings.ReplaceAll(text, r.old+"\n", path+"\n")
	}
	var lines strings.Builder
	for _, dir := range u.Writable {
		if Own(dir) {
			continue
		}
		path, err := written(dir)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&lines, "ReadWritePaths=-%s\n", path)
	}
	return strings.Replace(text, "UMask=", lines.String()+"UMask=", 1), nil
}

// Own reports whether a directory is one that systemd makes for the service,
// or in one.
func Own(dir string) bool { return within(dir, stateDir) || within(dir, logsDir) }

// written returns a path as it has to be written in a unit.
func written(path string) (string, error) {
	bad := func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune(`"'\$;:{}`, r)
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsFunc(path, bad) {
		return "", fmt.Errorf("the path %q can't stand in a systemd unit: it must begin at the root, without spaces, quotes and the like", path)
	}
	return strings.ReplaceAll(path, "%", "%%"), nil
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
