// Command demo shows trailpoll at work on one machine: it starts a real S3
// server, fills it with sample CloudTrail logs, runs the agent from a real
// configuration, receives over HTTPS and over syslog, and ends with the count
// of what was written, received, lost, repeated and altered. It exits 0 only if
// nothing was lost, repeated or altered.
//
// It is a module of its own, so that its S3 server stays out of the product's
// dependencies.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `demo shows trailpoll at work on this machine.

  demo [flags]       the demonstration
  demo s3 [flags]    only the S3 server, until it is interrupted

Flags of the demonstration:
`

// run is main with its surroundings named: exit code 0 if all held, 1 if not,
// 2 for wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == "s3" {
		return runS3(ctx, args[1:], stdout, stderr)
	}
	var o options
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.program, "agent", "bin/trailpoll", "the agent's program")
	f.Uint64Var(&o.seed, "seed", 1, "what the sample logs are made from")
	f.IntVar(&o.logs, "objects", 600, "how many log files to write")
	f.DurationVar(&o.live, "live", 12*time.Second, "how long new log files keep coming after the first ones")
	f.DurationVar(&o.quiet, "quiet", 3*time.Second, "how long nothing may come at the end, so that a repeat would be seen: several polls")
	f.DurationVar(&o.timeout, "timeout", 60*time.Second, "give up after this long")
	f.BoolVar(&o.plain, "plain", false, "plain lines, even on a terminal")
	f.StringVar(&o.keep, "dir", "", "work in this folder and leave it there; empty = a temporary one that is removed")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if f.NArg() > 0 || o.logs < 20 || o.live < 0 || o.timeout <= 0 {
		fmt.Fprintln(stderr, "demo: no arguments but flags, at least 20 objects, and times above zero")
		return 2
	}
	if err := demonstrate(ctx, o, stdout); err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 1
	}
	return 0
}
