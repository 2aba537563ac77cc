// Command bench measures the agent beside a bare loop, in one run on one
// machine: CPU-seconds per million records, wall time, peak memory, and the
// ratio of the two. Absolute times mean nothing on a shared machine; the ratio
// of two programs that did the same work one after the other does.
//
// It is a module of its own, so that what the bare loop needs stays out of the
// product's dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `bench measures trailpoll beside a bare loop.

  bench [flags]            measure and print a table
  bench profile [flags]    run the agent inside a process of this program and write profiles of it

Flags:
`

// options are the flags.
type options struct {
	agent      string
	runs       int
	only       *regexp.Regexp // which works; nil = all
	json       string         // file for the result; "" = none
	svg        string         // file for the chart; "" = none
	memory     string         // the agent's setting
	scale      float64        // of the number of objects
	install    bool           // programs to compare with, where they are missing
	profileDir string         // with profile
}

// run is main with its surroundings named: exit code 0 if all was measured, 1
// if not, 2 for wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		switch args[0] {
		case bareCommand:
			return ended(stderr, runBare(ctx, args[1:]))
		case inProcessCommand:
			return ended(stderr, runInProcess(ctx, args[1:]))
		}
	}
	profile := len(args) > 0 && args[0] == "profile"
	if profile {
		args = args[1:]
	}
	o, err := parse(args, profile, stderr)
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(stderr, "bench:", err)
		}
		return 2
	}
	if profile {
		return ended(stderr, profileAll(ctx, o, stdout))
	}
	return ended(stderr, measureAll(ctx, o, stdout, stderr))
}

func parse(args []string, profile bool, stderr io.Writer) (*options, error) {
	o := &options{}
	only := ""
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
	}
	f.StringVar(&only, "only", "", "a regular expression over the names of the works to do; empty = all")
	f.StringVar(&o.memory, "memory", "32MiB", "the agent's ceiling for records in flight")
	f.Float64Var(&o.scale, "scale", 1, "times the usual number of objects")
	if profile {
		f.StringVar(&o.profileDir, "dir", ".", "where to write the profiles")
	} else {
		f.StringVar(&o.agent, "agent", "", "the agent's program; empty = build it, which takes the benchmark to be run in its own folder")
		f.IntVar(&o.runs, "n", 2, "how often each pair is run")
		f.BoolVar(&o.install, "install", true, "as root on Debian, install what to compare with (rclone, awscli, jq, curl) where it is missing")
		f.StringVar(&o.json, "json", "", "write the result to this `FILE`, too")
		f.StringVar(&o.svg, "svg", "", "draw the result into this `FILE`, too")
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q: no arguments but flags", f.Arg(0))
	}
	if !profile && o.runs < 1 || o.scale <= 0 {
		return nil, errors.New("-n and -scale must be above zero")
	}
	if only != "" {
		var err error
		if o.only, err = regexp.Compile(only); err != nil {
			return nil, fmt.Errorf("reading -only: %w", err)
		}
	}
	names := []string{}
	for _, w := range slices.Concat(works(), waits()) {
		names = append(names, w.name)
	}
	if !profile {
		names = append(names, idleName)
		for _, g := range growings() {
			names = append(names, g.name)
		}
	}
	if !slices.ContainsFunc(names, o.wants) {
		return nil, errors.New("no work has a name that -only matches")
	}
	return o, nil
}

// wants reports whether a work is asked for.
func (o *options) wants(name string) bool { return o.only == nil || o.only.MatchString(name) }

func ended(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// measureAll measures every work asked for, prints the table and writes JSON.
func measureAll(ctx context.Context, o *options, stdout, stderr io.Writer) (err error) {
	agent, err := filepath.Abs(o.agent)
	if err != nil {
		return err
	}
	if o.agent == "" {
		dir, mkErr := os.MkdirTemp("", "trailpoll-bench-")
		if mkErr != nil {
			return mkErr
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if agent, err = buildAgent(ctx, dir); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &report{Schema: 1, Began: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Pairs: o.runs, Memory: o.memory}
	e := &environment{self: self, agent: agent, memory: o.memory, install: o.install, stderr: stderr}
	for _, w := range chosen(o, works()) {
		m, err := e.measure(ctx, w, o.runs)
		if err != nil {
			return fmt.Errorf("measuring %q: %w", w.name, err)
		}
		r.Works = append(r.Works, *m)
	}
	for _, w := range chosen(o, waits()) {
		m, err := e.measureWait(ctx, w, min(o.runs, 2))
		if err != nil {
			return fmt.Errorf("measuring %q: %w", w.name, err)
		}
		r.Waits = append(r.Waits, *m)
	}
	for _, g := range growings() {
		if !o.wants(g.name) {
			continue
		}
		m, err := e.measureGrowth(ctx, g, o.runs, o.scale)
		if err != nil {
			return fmt.Errorf("measuring %q: %w", g.name, err)
		}
		r.Growth = append(r.Growth, *m)
	}
	if o.wants(idleName) {
		if r.Idle, err = e.measureIdle(ctx, o.runs); err != nil {
			return fmt.Errorf("measuring %q: %w", idleName, err)
		}
	}
	r.WallSeconds = time.Since(r.Began).Seconds()
	if err := r.print(stdout); err != nil {
		return err
	}
	if o.svg != "" {
		if err := r.draw(o.svg); err != nil {
			return err
		}
	}
	if o.json == "" {
		return nil
	}
	return r.write(o.json)
}

// product is the module that the agent is built from.
const product = "github.com/trailpoll/trailpoll"

// buildAgent builds the agent's program into dir and returns its path.
func buildAgent(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", product).Output()
	if err != nil {
		return "", fmt.Errorf("finding the agent's source: %w; run this in cmd/demo/bench, or say -agent", err)
	}
	agent := filepath.Join(dir, "trailpoll")
	if runtime.GOOS == "windows" {
		agent += ".exe"
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", agent, "./cmd/trailpoll")
	build.Dir = strings.TrimSpace(string(root))
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the agent: %w\n%s", err, said)
	}
	return agent, nil
}
