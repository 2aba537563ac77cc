package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/checkpoint"
)

// localResyncs are those of a state that no agent works at.
type localResyncs struct {
	agent *agent.Agent

	conf  *config.Config
	w     *wiring
	store *checkpoint.Store
	away  string // a state that is only made up, to be removed
}

// openResyncs opens the state, for reading alone unless the command is to
// change it. Where there is none yet, what reads finds an empty one.
func openResyncs(c *cobra.Command, conf *config.Config, changes bool) (*localResyncs, error) {
	w, err := wire(conf, c.OutOrStdout())
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	l := &localResyncs{conf: conf, w: w}
	dir := conf.Agent.StateDir
	if !changes {
		l.store, err = checkpoint.OpenReadOnly(dir, 0)
		if errors.Is(err, checkpoint.ErrNoState) {
			l.away, err = os.MkdirTemp("", "trailpoll")
			changes, dir = err == nil, l.away
		}
	}
	if changes {
		l.store, _, err = checkpoint.Open(dir, checkpoint.Options{
			Notice: func(s string) { fmt.Fprintf(c.ErrOrStderr(), "trailpoll: %s\n", s) },
		})
	}
	if err != nil {
		code := exitFailed
		if errors.Is(err, checkpoint.ErrHeld) {
			code = exitHeld
		}
		if l.away != "" {
			err = errors.Join(err, os.RemoveAll(l.away))
		}
		return nil, &exitError{code, errors.Join(err, w.Close())}
	}
	if err := l.hire(0, zerolog.Nop()); err != nil {
		return nil, failed(errors.Join(err, l.close()))
	}
	return l, nil
}

// hire makes an agent that works at one re-sync only, or none.
func (l *localResyncs) hire(only progress.ResyncID, log zerolog.Logger) (err error) {
	cfg := l.w.agent
	cfg.Checkpoint, cfg.Log, cfg.Only = l.store, log, only
	l.agent, err = agent.New(cfg)
	return err
}

func (l *localResyncs) close() error {
	err := errors.Join(l.w.Close(), l.store.Close())
	if l.away != "" {
		err = errors.Join(err, os.RemoveAll(l.away))
	}
	return failed(err)
}

func (l *localResyncs) order(ctx context.Context, o agent.ResyncOrder) (resyncJob, error) {
	s, err := l.agent.Resync(ctx, o)
	return jobOf(s), err
}

func (l *localResyncs) count(ctx context.Context, o agent.ResyncOrder) (resyncEstimate, error) {
	e, err := l.agent.CountResync(ctx, o)
	return estimateOf(e), err
}

func (l *localResyncs) list(context.Context) ([]resyncJob, error) {
	all, err := l.agent.Resyncs()
	return jobsOf(all), err
}

func (l *localResyncs) cancel(ctx context.Context, id progress.ResyncID) (resyncJob, error) {
	s, err := l.agent.CancelResync(ctx, id)
	return jobOf(s), err
}

// doResync orders a re-sync and, unless it is detached, waits for its end.
func doResync(c *cobra.Command, conf *config.Config, o agent.ResyncOrder, f resyncFlags) error {
	client, err := connect(c, conf)
	if err != nil {
		return err
	}
	if client != nil {
		defer client.Close()
		return waitResync(c, conf, &remoteResyncs{client}, o, f)
	}
	l, err := openResyncs(c, conf, true)
	if err != nil {
		return err
	}
	return errors.Join(l.work(c, o, f), l.close())
}

// work orders a re-sync where no agent runs, and does the work itself.
func (l *localResyncs) work(c *cobra.Command, o agent.ResyncOrder, f resyncFlags) error {
	orders := newOrders()
	defer orders.listen(false)()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	out := c.OutOrStdout()
	for i := range l.conf.Outputs {
		if l.conf.Outputs[i].Enabled && l.conf.Outputs[i].Type == config.TypeStdout && !f.detach {
			out = c.ErrOrStderr() // records go to standard output, and nothing else
		}
	}
	job, err := l.order(ctx, o)
	if err != nil {
		return resyncError(err)
	}
	if f.detach {
		return showOrdered(out, job, f, "the next run does it")
	}
	show := newResyncShow(c.ErrOrStderr(), job.ID)
	defer show.end()
	conf := l.conf.Agent
	if conf.LogFile == "" && conf.LogLevel == "info" {
		conf.LogLevel = "warn" // what goes on is shown in another way
	}
	sink := &logSink{}
	defer sink.Close()
	log, err := sink.open(conf, show.above())
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if err := l.hire(job.ID, log); err != nil {
		return failed(err)
	}
	d := newDesk(l.store, log)
	d.takes(l.agent, l.conf)
	closeDesk := d.open(ctx, l.conf.Agent.StateDir, log)
	defer closeDesk()

	work := begin(ctx, l.agent)
	defer work.end()
	tick := time.NewTicker(resyncEvery)
	defer tick.Stop()
	for working := true; working; {
		select {
		case <-tick.C:
			l.showNow(show, job.ID)
		case <-orders.stop:
			work.orderStop()
		case <-work.ended:
			working = false
		}
	}
	job = l.showNow(show, job.ID)
	show.end()
	switch {
	case work.err != nil:
		return failed(work.err)
	case job.over():
		return showEnded(out, job, f)
	case work.orders > 0:
		return failed(fmt.Errorf("interrupted: re-sync %v stays where it is, and the next run goes on with it; trailpoll resync cancel %v ends it", job.ID, job.ID))
	}
	for _, u := range work.result.Unfinished {
		fmt.Fprintf(c.ErrOrStderr(), "trailpoll: %s\n", u)
	}
	return failed(fmt.Errorf("re-sync %v is not done; the next run goes on with it, and trailpoll resync cancel %v ends it", job.ID, job.ID))
}

// resyncEvery is how often it is looked how far a re-sync is.
const resyncEvery = 500 * time.Millisecond

func (l *localResyncs) showNow(show *resyncShow, id progress.ResyncID) resyncJob {
	jobs, _ := l.list(context.Background())
	return show.now(jobs, id)
}

// waitResync orders a re-sync of the agent that runs and, unless it is
// detached, waits for its end.
func waitResync(c *cobra.Command, conf *config.Config, r *remoteResyncs, o agent.ResyncOrder, f resyncFlags) error {
	orders := newOrders()
	defer orders.listen(false)()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	job, err := r.order(ctx, o)
	if err != nil {
		return asExit(err)
	}
	if f.detach {
		return showOrdered(c.OutOrStdout(), job, f, "the agent does it")
	}
	show := newResyncShow(c.ErrOrStderr(), job.ID)
	defer show.end()
	tick := time.NewTicker(resyncEvery)
	defer tick.Stop()
	for silent := 0; !job.over(); {
		select {
		case <-tick.C:
		case <-orders.stop:
			show.end()
			return failed(fmt.Errorf("interrupted: re-sync %v goes on in the agent; trailpoll resync cancel %v ends it", job.ID, job.ID))
		}
		jobs, err := r.list(ctx)
		if err != nil {
			// It may be taking another configuration, or be started again.
			if silent++; silent > silentMost {
				show.end()
				return failed(fmt.Errorf("the agent can't be asked any more: re-sync %v goes on when it runs: %w", job.ID, err))
			}
			if client, err := control.Connect(ctx, conf.Agent.StateDir); err == nil {
				r.client.Close()
				r.client = client
			}
			continue
		}
		silent = 0
		job = show.now(jobs, job.ID)
	}
	show.end()
	return showEnded(c.OutOrStdout(), job, f)
}

// silentMost is how often in a row the agent may give no answer.
const silentMost = int(30 * time.Second / resyncEvery)

// asExit leaves an error that has its exit code, and makes others failures.
func asExit(err error) error {
	if _, ok := errors.AsType[*exitError](err); ok {
		return err
	}
	return failed(err)
}
