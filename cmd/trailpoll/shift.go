package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// beside is what the collector is given beside the records in flight. The pages
// of the program's file, about 20 MiB, come on top.
const beside = 12 << 20

// errInterrupted: a second order to stop ended the agent before it had stopped
// in order.
var errInterrupted = errors.New("interrupted")

// shift is one agent with its configuration, from its first listing to the end
// of its drain.
type shift struct {
	conf  *config.Config
	w     *wiring
	agent *agent.Agent
	asked chan<- error // wants to know when it has begun; nil = nobody does
}

// prepare makes an agent of what was wired. It starts nothing.
func (r *runner) prepare(conf *config.Config, w *wiring) (*shift, error) {
	w.agent.Checkpoint, w.agent.Log = r.store, r.log
	w.agent.Once, w.agent.Sweep = r.once, r.sweep
	a, err := agent.New(w.agent)
	if err != nil {
		return nil, err
	}
	return &shift{conf: conf, w: w, agent: a}, nil
}

// shifts runs one shift after the other until an order or an error ends the
// last one, and closes what was wired.
func (r *runner) shifts(ctx context.Context, conf *config.Config, w *wiring) (agent.Result, error) {
	now, err := r.prepare(conf, w)
	if err != nil {
		return agent.Result{}, errors.Join(err, w.Close())
	}
	for {
		next, result, err := r.shift(ctx, now)
		// Outputs first: nothing that they still do can be committed any more,
		// and the next shift may write to the same file.
		if e := now.w.Close(); e != nil {
			// All that counts was acknowledged and committed before: a receiver
			// that breaks the farewell off is no reason to end with an error,
			// nor to end at all where the next shift waits.
			r.log.Warn().Err(e).Msg("an output was not closed in order; what it took is settled, and the rest is sent again")
		}
		sayFiltered(now.w.filters, r.log)
		switch {
		case next == nil:
			return result, err
		case err != nil:
			next.answer(err)
			return result, errors.Join(err, next.w.Close())
		}
		now = next
	}
}

// shift runs an agent until it is done, told to stop, or replaced by next.
func (r *runner) shift(ctx context.Context, now *shift) (*shift, agent.Result, error) {
	if os.Getenv("GOMEMLIMIT") == "" {
		// The collector is to work harder before it lets garbage pass the
		// ceiling that the configuration sets.
		debug.SetMemoryLimit(int64(now.conf.Agent.Memory) + beside)
	}
	work := begin(ctx, now.agent)
	defer work.end()
	r.desk.takes(now.agent, now.conf)
	defer r.desk.takes(nil, now.conf)
	if !r.once {
		defer r.desk.listen(ctx, &now.conf.Agent, r.log)()
	}
	r.manager.ready(now.conf, func() error { _, err := r.store.Stats(); return err })
	now.answer(nil)

	hup, reload := r.orders.hup, r.orders.reload
	var next *shift
	for {
		var asked chan<- error
		select {
		case <-work.ended:
			err := work.err
			if err == nil && work.orders > 1 {
				err = errInterrupted
			}
			if work.orders > 0 && next != nil {
				next.answer(errStopping)
				err = errors.Join(err, next.w.Close())
				next = nil
			}
			return next, work.result, err
		case why := <-r.orders.stop:
			r.log.Info().Str("order", why).Msg("stopping")
			r.manager.stopping(time.Duration(now.conf.Agent.DrainTimeout))
			work.orderStop()
			hup, reload = nil, nil // who asks now waits, and is answered when the socket closes
			continue
		case <-hup:
		case asked = <-reload:
		}
		// A reload: the new configuration is judged while the old one works on,
		// and the old agent stops in order only when nothing can be found against
		// the new one.
		r.manager.reloading()
		var err error
		if next, err = r.change(now.conf, asked); err != nil {
			r.sayRefused(err)
			r.manager.ready(now.conf, nil)
			if asked != nil {
				asked <- err
			}
			continue
		}
		r.log.Info().Msg("the configuration has changed: the agent stops in order and begins again with the new one")
		hup, reload = nil, nil
		work.stop()
	}
}

var errStopping = errors.New("the agent is stopping")

func (s *shift) answer(err error) {
	if s.asked != nil {
		s.asked <- err // has room for one
	}
	s.asked = nil
}

// change makes the next shift of the configuration as it is now in its file.
// Whatever is wrong with it, the shift that works is not touched.
func (r *runner) change(now *config.Config, asked chan<- error) (*shift, error) {
	conf, err := load(r.c)
	if err != nil {
		return nil, err
	}
	if conf.Agent.LogFile == "" {
		conf.Agent.LogFile = r.manager.logFile(conf.Agent.StateDir)
	}
	if filepath.Clean(conf.Agent.StateDir) != filepath.Clean(now.Agent.StateDir) {
		return nil, &fault.Error{Op: "taking the changed configuration", Kind: fault.Misconfigured,
			Err:  fmt.Errorf("state_dir can't change from %s to %s while the agent runs", now.Agent.StateDir, conf.Agent.StateDir),
			Hint: "stop the agent, move the state directory, and start it again"}
	}
	w, err := wire(conf, r.c.OutOrStdout())
	if err != nil {
		return nil, err
	}
	old := r.log
	if r.log, err = r.sink.open(conf.Agent, r.c.ErrOrStderr()); err != nil {
		r.log = old
		return nil, errors.Join(err, w.Close())
	}
	next, err := r.prepare(conf, w)
	if err != nil {
		r.log = old
		return nil, errors.Join(err, w.Close())
	}
	next.asked = asked
	return next, nil
}

// sayRefused logs why a changed configuration was not taken.
func (r *runner) sayRefused(err error) {
	const text = "the changed configuration is refused: the agent works on with the old one"
	if problems, ok := errors.AsType[config.Errors](err); ok {
		for _, p := range problems {
			r.log.Error().Stringer("problem", p).Msg(text)
		}
		return
	}
	e := r.log.Error().Err(err)
	if hint := fault.HintOf(err); hint != "" {
		e = e.Str("remedy", hint)
	}
	e.Msg(text)
}
