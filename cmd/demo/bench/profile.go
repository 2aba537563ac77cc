package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/output/https"
	"github.com/trailpoll/trailpoll/agent/output/syslog"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/s3source"
	"github.com/trailpoll/trailpoll/checkpoint"
)

// inProcessCommand is the hidden command that runs the agent in this program.
const inProcessCommand = "in-process"

var notInName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// profileAll runs the agent for each work asked for in a process of this
// program, which profiles itself.
func profileAll(ctx context.Context, o *options, stdout io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.profileDir, 0o755); err != nil {
		return err
	}
	for _, w := range chosen(o, slices.Concat(works(), waits())) {
		if w.rules || slices.ContainsFunc(w.outputs, func(o output) bool { return o.record != "" || o.format != "" }) {
			continue // the agent inside this program has none of these
		}
		base := filepath.Join(o.profileDir, strings.ToLower(notInName.ReplaceAllString(w.name, "-")))
		if err := profileOne(ctx, self, o.memory, base, &w); err != nil {
			return fmt.Errorf("profiling %q: %w", w.name, err)
		}
		fmt.Fprintf(stdout, "%s: %s.cpu.pprof and others; read them with go tool pprof\n", w.name, base)
	}
	return nil
}

func profileOne(ctx context.Context, self, memory, base string, w *work) (err error) {
	st, err := newStage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if _, err := fill(st.s3, w.set); err != nil {
		return err
	}
	if w.delay > 0 {
		st.s3.Inject(func(string, string, string, int) s3test.Fault { return s3test.Fault{Delay: w.delay} })
	}
	dir, err := os.MkdirTemp("", "trailpoll-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, err := configure(dir, memory, st, w)
	if err != nil {
		return err
	}
	_, err = runChild(ctx, self, []string{inProcessCommand, "-config", file, "-profiles", base})
	if err == nil {
		err = st.to.check(w.set.total() * len(w.outputs))
	}
	return err
}

// runInProcess is the hidden command.
func runInProcess(ctx context.Context, args []string) error {
	f := flag.NewFlagSet(inProcessCommand, flag.ContinueOnError)
	file := f.String("config", "", "the agent's configuration")
	base := f.String("profiles", "", "what the profiles' names begin with")
	if err := f.Parse(args); err != nil {
		return err
	}
	conf, _, err := config.Load(*file)
	if err != nil {
		return err
	}
	cpu, err := os.Create(*base + ".cpu.pprof")
	if err != nil {
		return err
	}
	runtime.SetMutexProfileFraction(10)
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	err = runHere(ctx, conf)
	pprof.StopCPUProfile()
	err = errors.Join(err, cpu.Close())
	for _, name := range []string{"allocs", "mutex"} {
		err = errors.Join(err, writeProfile(name, *base+"."+name+".pprof"))
	}
	return err
}

func writeProfile(name, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
}

// beside is what the product adds to memory for the collector's limit.
const beside = 12 << 20

// runHere is `trailpoll run --once` for what configure writes.
func runHere(ctx context.Context, conf *config.Config) (err error) {
	debug.SetMemoryLimit(int64(conf.Agent.Memory) + beside)
	store, _, err := checkpoint.Open(conf.Agent.StateDir, checkpoint.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	s := &conf.Sources[0]
	bucket, err := s3source.New(s3source.Config{
		Bucket: s.Bucket.Name, Region: s.Bucket.Region, Endpoint: s.Bucket.Endpoint, PathStyle: s.Bucket.PathStyle,
		CAFile: s.Bucket.CAFile,
		Credentials: s3source.Credentials{
			Type: s3source.Static, AccessKeyID: s.Credentials.AccessKeyID,
			SecretAccessKey: s.Credentials.SecretAccessKey.Reveal(),
		},
	})
	if err != nil {
		return err
	}
	defer bucket.Close()
	l := &s.Listing
	cfg := agent.Config{
		Checkpoint: store, Log: zerolog.New(os.Stderr), Once: true,
		Downloads: conf.Agent.Downloads, Memory: int64(conf.Agent.Memory), MaxRecord: int(conf.Agent.MaxRecord),
		DrainTimeout: time.Duration(conf.Agent.DrainTimeout),
		Sources: []agent.SourceConfig{{
			Name: s.Name, Store: bucket, Bucket: s.Bucket.Name, Prefix: s.Bucket.Prefix,
			Start: func(now time.Time) time.Time {
				t, err := s.Start.Resolve(now)
				if err != nil { // the configuration was validated
					return now
				}
				return t
			},
			Refresh: time.Duration(l.Refresh), IdleRefresh: time.Duration(l.IdleRefresh),
			LookBack: time.Duration(l.LookBack), LateHorizon: time.Duration(l.LateHorizon),
			Discovery: time.Duration(l.Discovery),
		}},
	}
	for i := range conf.Outputs {
		out, outErr := outputHere(&conf.Outputs[i])
		if outErr != nil {
			return outErr
		}
		defer func() { err = errors.Join(err, out.Output.Close()) }()
		cfg.Outputs = append(cfg.Outputs, out)
	}
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	result, err := a.Run(ctx, ctx)
	if err == nil && len(result.Unfinished) > 0 {
		err = fmt.Errorf("not everything was delivered: %s", strings.Join(result.Unfinished, "; "))
	}
	return err
}

func outputHere(o *config.Output) (agent.OutputConfig, error) {
	out := agent.OutputConfig{
		Name: o.Name, BatchRecords: 500, BatchBytes: 256 << 10, BatchWait: 200 * time.Millisecond, Connections: 1,
	}
	if o.Type == config.TypeSyslog {
		l := &o.Syslog
		to, err := syslog.New(syslog.Config{
			Addresses: l.Addresses, Transport: syslog.Transport(l.Transport), Framing: syslog.Framing(l.Framing),
			Facility: l.Facility, Severity: l.Severity, AppName: l.AppName, Hostname: l.Hostname,
			MaxMessage: int(l.MaxMessage), ConfirmDelay: time.Duration(l.ConfirmDelay),
		})
		out.Output = to
		return out, err
	}
	h := &o.HTTPS
	to, err := https.New(https.Config{
		URL: h.URL.Reveal(), Format: https.Format(h.Format), Compression: h.Compression,
		Timeout: time.Duration(h.Timeout), Connections: h.Connections,
		TLS: tlsconf.Config{CAFile: h.TLS.CAFile},
	})
	out.Output = to
	out.BatchRecords, out.BatchBytes = h.BatchRecords, int(h.BatchBytes)
	out.BatchWait, out.Connections = time.Duration(h.BatchWait), h.Connections
	return out, err
}
