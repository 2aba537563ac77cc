package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/checkpoint"
)

func newRunCommand() *cobra.Command {
	var once, sweep bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent in the foreground",
		Long: "Run the agent in the foreground, until SIGTERM or an interrupt stops it in order;\n" +
			"a second one stops it at once.\n\n" +
			"With --once it delivers what is there and ends: exit code 0 if all of it was delivered,\n" +
			"1 if something stays parked or a source or output made no progress for 2 minutes.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if sweep && !once {
				return errors.New("--sweep goes with --once: a running agent sweeps by itself")
			}
			conf, err := load(c)
			if err != nil {
				return err
			}
			return runAgent(c, conf, once, sweep)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "deliver what is there, then end")
	c.Flags().BoolVar(&sweep, "sweep", false, "with --once: go back over the whole late horizon")
	return c
}

// beside is the memory that the program takes beside the records in flight.
const beside = 20 << 20

func runAgent(c *cobra.Command, conf *config.Config, once, sweep bool) (err error) {
	log, closeLog, err := newLogger(conf.Agent, c.ErrOrStderr())
	if err != nil {
		return &exitError{exitUsage, err}
	}
	defer closeLog()
	if os.Getenv("GOMEMLIMIT") == "" {
		// The collector is to work harder before it lets garbage pass the
		// ceiling that the configuration sets.
		debug.SetMemoryLimit(int64(conf.Agent.Memory) + beside)
	}

	// A closed pipe is an error of the output that writes to it, and no reason
	// to end the process.
	signal.Ignore(syscall.SIGPIPE)

	w, err := wire(conf, c.OutOrStdout())
	if err != nil {
		return &exitError{exitUsage, err}
	}
	store, report, err := checkpoint.Open(conf.Agent.StateDir, checkpoint.Options{
		Notice: func(s string) { log.Warn().Msg(s) },
	})
	if err != nil {
		code := exitFailed
		if errors.Is(err, checkpoint.ErrHeld) {
			code = exitHeld
		}
		return &exitError{code, fmt.Errorf("opening the state in %s: %w", conf.Agent.StateDir, err)}
	}
	log.Info().Str("version", thisBuild().Version).Str("state_dir", conf.Agent.StateDir).
		Bool("fresh", report.Fresh).Bool("rebuilt", report.Rebuilt).Msg("trailpoll begins")

	w.agent.Checkpoint, w.agent.Log = store, log
	w.agent.Once, w.agent.Sweep = once, sweep
	desk := newDesk(log)
	closeDesk := desk.open(c.Context(), conf.Agent.StateDir, log)
	result, err := supervise(c.Context(), w.agent, desk)
	closeDesk()
	// Outputs first: nothing that they still do can be committed any more.
	err = errors.Join(err, w.Close())
	stays := 0
	if once && err == nil {
		stays, err = sayParked(store, log)
	}
	err = errors.Join(err, store.Close())
	for _, u := range result.Unfinished {
		log.Error().Str("unfinished", u).Msg("not everything was delivered")
	}
	switch {
	case errors.Is(err, errInterrupted):
		log.Error().Err(err).Msg("trailpoll ends at once; what was not acknowledged will be sent again")
		return &exitError{code: exitFailed}
	case err != nil:
		return failed(err)
	case once && (len(result.Unfinished) > 0 || stays > 0):
		log.Error().Int("parked", stays).Msg("trailpoll ends; not everything is delivered")
		return &exitError{code: exitFailed}
	}
	log.Info().Msg("trailpoll ends")
	return nil
}

// errInterrupted: a second signal ended the agent before it had stopped in order.
var errInterrupted = errors.New("interrupted")

// supervise runs the agent until it is done or told to stop. Meanwhile it is
// the one at the desk.
func supervise(ctx context.Context, cfg agent.Config, desk *desk) (agent.Result, error) {
	a, err := agent.New(cfg)
	if err != nil {
		return agent.Result{}, err
	}
	desk.agent.Store(a)
	defer desk.agent.Store(nil)
	// The first signal stops in order, the second at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	stop, stopped := context.WithCancel(ctx)
	defer stopped()
	abort, aborted := context.WithCancel(ctx)
	defer aborted()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for _, f := range []func(){stopped, aborted} {
			select {
			case s := <-signals:
				cfg.Log.Info().Stringer("signal", s).Msg("stopping")
				f()
			case <-done:
				return
			}
		}
	}()
	result, err := a.Run(stop, abort)
	if err == nil && abort.Err() != nil {
		err = errInterrupted
	}
	return result, err
}

// sayParked logs what is parked and returns how much of it there is.
func sayParked(store *checkpoint.Store, log zerolog.Logger) (n int, err error) {
	const most = 100
	err = store.Parked(func(e progress.Entry) bool {
		if n++; n > most {
			return true
		}
		l := log.Error().Str("id", string(e.ID())).Str("output", e.Lane.Output).
			Str("bucket", string(e.Lane.Source)).Stringer("stream", e.Lane.Stream).Str("position", e.Position).
			Str("reason", string(e.Reason)).Str("error", e.Error)
		if e.Record >= 0 {
			l = l.Int("record", e.Record)
		} else if e.At >= 0 {
			l = l.Int("record", e.At)
		}
		l.Msg("stays parked")
		return true
	})
	if n > most {
		log.Error().Int("more", n-most).Msg("stay parked")
	}
	return n, err
}
