package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// answers are what a first configuration is made of.
type answers struct {
	bucket, prefix, region, role string
	start                        string
	output                       string // https, syslog, file or stdout
	url, token                   string // https
	address, transport           string // syslog
	path                         string // file
	stateDir                     string
	check                        bool // try it then
}

// question is one of the answers: its flag, and what is asked for it.
type question struct {
	flag, usage string
	ask         string // "" = not asked, only a flag
	value       *string
	preset      string
	when        string // the output that it is for; "" = all
	must        bool
}

func (a *answers) questions() []question {
	return []question{
		{flag: "bucket", usage: "the `NAME` of the bucket that the trail writes to", ask: "Bucket that the trail writes to", value: &a.bucket, must: true},
		{flag: "prefix", usage: "the trail's S3 key `PREFIX`, without AWSLogs/", ask: "S3 key prefix of the trail, if it has one", value: &a.prefix},
		{flag: "region", usage: "the bucket's `REGION`; auto asks S3", value: &a.region, preset: "auto"},
		{flag: "role", usage: "the `ARN` of a role to assume", ask: "ARN of a role to assume, if one is needed", value: &a.role},
		{flag: "start", usage: "how far back to begin: now, -7d, 2026-11-01, …", ask: "How far back to begin (now, -24h, -7d, a date)", value: &a.start, preset: "-24h"},
		{flag: "output", usage: "where records go: https, syslog, file or stdout", ask: "Where records go (https, syslog, file, stdout)", value: &a.output, preset: "https", must: true},
		{flag: "url", usage: "https: the `URL` to post to", ask: "URL to post records to", value: &a.url, when: config.TypeHTTPS, must: true},
		{flag: "token", usage: "https: the bearer token, better as env:NAME or file:/path", ask: "Bearer token, as env:NAME or file:/path (empty: none)", value: &a.token, when: config.TypeHTTPS},
		{flag: "address", usage: "syslog: `HOST:PORT` of the receiver", ask: "Address of the syslog receiver, host:port", value: &a.address, when: config.TypeSyslog, must: true},
		{flag: "transport", usage: "syslog: udp, tcp, tls, relp or relp-tls", ask: "Transport (udp, tcp, tls, relp, relp-tls)", value: &a.transport, preset: "tls", when: config.TypeSyslog},
		{flag: "path", usage: "file: the `FILE` to write to", ask: "File to write to", value: &a.path, when: config.TypeFile, must: true},
		{flag: "state-dir", usage: "the `DIRECTORY` for the agent's state", value: &a.stateDir},
	}
}

func newInitCommand() *cobra.Command {
	var a answers
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration, from flags or a few questions",
		Long: "Write a first configuration, with comments, to where --config says. What no flag says is\n" +
			"asked for if there is a terminal. A file that is there already is not touched.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := c.Flags().GetString("config")
			if err != nil {
				return err
			}
			if _, err := os.Lstat(path); err == nil {
				return failed(&fault.Error{Op: "writing " + path, Err: errors.New("it is there already"),
					Hint: "change it with an editor and run trailpoll config validate, or name another file with --config"})
			}
			var in io.Reader
			if f, ok := c.InOrStdin().(*os.File); ok && isTerminal(f) {
				in = f
			}
			if in != nil && !c.Flags().Changed("check") {
				a.check = true // who answers questions is there to read what is wrong
			}
			given := func(flag string) bool { return c.Flags().Changed(flag) }
			if err := a.complete(in, c.ErrOrStderr(), given); err != nil {
				return err
			}
			return writeFirst(c, path, &a)
		},
	}
	for _, q := range a.questions() {
		c.Flags().StringVar(q.value, q.flag, q.preset, q.usage)
	}
	c.Flags().BoolVar(&a.check, "check", false, "try it then, as trailpoll check does (the default with a terminal)")
	return c
}

// complete asks for what was not given. Without somebody to ask, in is nil, and
// what has to be there and is not is an error.
func (a *answers) complete(in io.Reader, out io.Writer, given func(flag string) bool) error {
	var lines *bufio.Scanner
	if in != nil {
		lines = bufio.NewScanner(in)
	}
	var missing []string
	for _, q := range a.questions() {
		switch {
		case q.when != "" && q.when != a.output || given(q.flag):
		case lines == nil:
			if q.must && *q.value == "" {
				missing = append(missing, "--"+q.flag)
			}
		case q.ask != "":
			if err := q.put(lines, out); err != nil {
				return err
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("there is no terminal to ask on: name %s", strings.Join(missing, ", "))
	}
	return nil
}

// put asks the question until it is answered.
func (q *question) put(lines *bufio.Scanner, out io.Writer) error {
	for {
		preset := ""
		if q.preset != "" {
			preset = " [" + q.preset + "]"
		}
		if _, err := fmt.Fprintf(out, "%s%s: ", q.ask, preset); err != nil {
			return failed(err)
		}
		if !lines.Scan() {
			return failed(errors.Join(errors.New("the questions were not answered: nothing is written"), lines.Err()))
		}
		if text := strings.TrimSpace(lines.Text()); text != "" {
			*q.value = text
		}
		if *q.value != "" || !q.must {
			return nil
		}
	}
}

// text returns the configuration.
func (a *answers) text() string {
	var b strings.Builder
	line := func(key, value, comment string) {
		if comment != "" {
			comment = " # " + comment
		}
		fmt.Fprintf(&b, "%s = %s%s\n", key, tomlString(value), comment)
	}
	b.WriteString("# What trailpoll does. Every key, with its default: trailpoll config example\n\n[agent]\n")
	if a.stateDir != "" {
		line("state_dir", a.stateDir, "checkpoint and control socket")
	} else {
		fmt.Fprintf(&b, "# state_dir = %s\n", tomlString(config.Default().Agent.StateDir))
	}
	b.WriteString("# log_level = \"info\"\n\n[[source]]\nname = \"trail\"\n")
	line("bucket", a.bucket, "")
	if a.prefix != "" {
		line("prefix", a.prefix, "the trail's S3 key prefix, without AWSLogs/")
	}
	line("region", a.region, "of the bucket; auto asks S3")
	line("start", a.start, "resolved once, when the source is first seen")
	b.WriteString("# Organisations, accounts, log types and regions are discovered.\n")
	b.WriteString("\n[source.credentials]\ntype = \"auto\" # environment, shared files, container, EC2 role\n")
	if a.role != "" {
		b.WriteString("\n[[source.credentials.assume_role]]\n")
		line("arn", a.role, "")
	}
	b.WriteString("\n[[output]]\nname = \"siem\"\n")
	line("type", a.output, "")
	switch a.output {
	case config.TypeHTTPS:
		line("url", a.url, "")
		if a.token != "" {
			line("token", a.token, "")
		} else {
			b.WriteString("# token = \"file:/etc/trailpoll/secrets/siem-token\"\n")
		}
		b.WriteString("# format = \"ndjson\" # or json-array, splunk-hec, elastic-bulk, otlp\n")
	case config.TypeSyslog:
		fmt.Fprintf(&b, "addresses = [%s]\n", tomlString(a.address))
		line("transport", a.transport, "")
		if strings.HasSuffix(a.transport, "tls") {
			b.WriteString("\n[output.tls]\n# ca_file = \"/etc/trailpoll/ca.pem\" # if the receiver's is not one of the system's\n")
		}
	case config.TypeFile:
		line("path", a.path, "")
	}
	return b.String()
}

// tomlString returns a string as it is written in TOML, whatever is in it.
func tomlString(s string) string {
	text, err := toml.Marshal(map[string]string{"v": s})
	if err != nil { // a string can be written
		return `""`
	}
	return strings.TrimSpace(strings.TrimPrefix(string(text), "v = "))
}

// writeFirst writes the configuration, if nothing is wrong with it, and tries
// it.
func writeFirst(c *cobra.Command, path string, a *answers) error {
	text := a.text()
	_, warnings, err := config.Parse(path, []byte(text), config.SystemEnv())
	for _, w := range warnings {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %v\n", w)
	}
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("with these answers the configuration would be wrong, and is not written: %w", err)}
	}
	if err := writeNew(path, text); err != nil {
		return failed(&fault.Error{Op: "writing " + path, Err: err,
			Hint: "write it where you may, with --config FILE, or run the command as root or administrator"})
	}
	if _, err := fmt.Fprintf(c.OutOrStdout(), "written: %s\n", path); err != nil {
		return failed(err)
	}
	return tryFirst(c, a)
}

// tryFirst is what is done with a configuration that was just written: it is
// checked, from the file, as the agent will read it.
func tryFirst(c *cobra.Command, a *answers) error {
	out := c.OutOrStdout()
	if !a.check {
		named := ""
		if f := c.Flag("config"); f.Changed {
			named = " --config " + f.Value.String()
		}
		_, err := fmt.Fprintf(out, "look at it, and try it with: trailpoll check%s; then start the service\n", named)
		return failed(err)
	}
	if _, err := fmt.Fprintf(out, "\n"); err != nil {
		return failed(err)
	}
	conf, file, err := loadToCheck(c)
	if err != nil {
		return err
	}
	return runCheck(c, conf, file, &checkFlags{timeout: stepTimeout})
}

// writeNew writes a file that is not there yet, whole or not at all, for its
// owner alone and, where the service has a group, for that.
func writeNew(path, text string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the service has to get through; the file has its own mode
		return err
	}
	f, err := os.CreateTemp(dir, ".trailpoll-*.toml")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := forService(f.Name()); err != nil {
		return err
	}
	// A link fails where a rename would replace what somebody has written
	// meanwhile.
	err = os.Link(f.Name(), path)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		return os.Rename(f.Name(), path)
	}
	return err
}
