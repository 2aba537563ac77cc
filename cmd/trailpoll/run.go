package main

import (
	"errors"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/checkpoint"
)

func newRunCommand() *cobra.Command {
	var once, sweep bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent",
		Long: "Run the agent in the foreground or under the service manager, until SIGTERM or an\n" +
			"interrupt stops it in order; a second one stops it at once. SIGHUP makes it take the\n" +
			"changed configuration, as trailpoll reload does.\n\n" +
			"With --once it delivers what is there and ends: exit code 0 if all of it was delivered,\n" +
			"1 if something stays parked or a source or output made no progress for 2 minutes.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if sweep && !once {
				return errors.New("--sweep goes with --once: a running agent sweeps by itself")
			}
			r := &runner{c: c, once: once, sweep: sweep, orders: newOrders()}
			if once {
				r.manager = nobody{}
				return r.run()
			}
			return manage(r)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "deliver what is there, then end")
	c.Flags().BoolVar(&sweep, "sweep", false, "with --once: go back over the whole late horizon")
	return c
}

// runner runs the agent, and another in its place when the configuration has
// changed. The checkpoint stays open over all of them, so that no other agent
// can get between.
type runner struct {
	c           *cobra.Command
	once, sweep bool
	manager     manager
	orders      *orders

	sink  *logSink
	store *checkpoint.Store
	desk  *desk
	log   zerolog.Logger // of the agent that works now
}

// run runs until all is done or an order ends it.
func (r *runner) run() (err error) {
	conf, err := load(r.c)
	if err != nil {
		return err
	}
	ctx := r.c.Context()
	if conf.Agent.LogFile == "" {
		conf.Agent.LogFile = r.manager.logFile(conf.Agent.StateDir)
	}
	r.sink = &logSink{}
	defer r.sink.Close()
	if r.log, err = r.sink.open(conf.Agent, r.c.ErrOrStderr()); err != nil {
		return &exitError{exitUsage, err}
	}

	// A closed pipe is an error of the output that writes to it, and no reason
	// to end the process.
	signal.Ignore(syscall.SIGPIPE)
	defer r.orders.listen(!r.once)()

	w, err := wire(conf, r.c.OutOrStdout())
	if err != nil {
		return &exitError{exitUsage, err}
	}
	store, report, err := checkpoint.Open(conf.Agent.StateDir, checkpoint.Options{
		Notice: func(s string) { r.log.Warn().Msg(s) },
	})
	if err != nil {
		code := exitFailed
		if errors.Is(err, checkpoint.ErrHeld) {
			code = exitHeld
		}
		return &exitError{code, err}
	}
	r.store = store
	r.log.Info().Str("version", thisBuild().Version).Str("state_dir", conf.Agent.StateDir).
		Bool("fresh", report.Fresh).Bool("rebuilt", report.Rebuilt).Msg("trailpoll begins")

	r.desk = newDesk(r.store, r.log)
	if !r.once {
		r.desk.reload = r.orders.askReload
	}
	closeDesk := r.desk.open(ctx, conf.Agent.StateDir, r.log)
	result, err := r.shifts(ctx, conf, w)
	closeDesk()
	stays := 0
	if r.once && err == nil {
		stays, err = sayParked(store, r.log)
	}
	err = errors.Join(err, store.Close())
	for _, u := range result.Unfinished {
		r.log.Error().Str("unfinished", u).Msg("not everything was delivered")
	}
	switch {
	case errors.Is(err, errInterrupted):
		r.log.Error().Err(err).Msg("trailpoll ends at once; what was not acknowledged will be sent again")
		return &exitError{code: exitFailed}
	case err != nil:
		return failed(err)
	case r.once && (len(result.Unfinished) > 0 || stays > 0):
		r.log.Error().Int("parked", stays).Msg("trailpoll ends; not everything is delivered")
		return &exitError{code: exitFailed}
	}
	r.log.Info().Msg("trailpoll ends")
	return nil
}

// sayParked logs what is parked and returns how much of it there is.
func sayParked(store *checkpoint.Store, log zerolog.Logger) (n int, err error) {
	const most = 100
	err = store.Parked(func(e progress.Entry) bool {
		if !e.Skipped.IsZero() {
			return true // set aside for good
		}
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
