package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/control/page"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/checkpoint"
)

// desk answers what comes over the control socket while the state is held. It
// outlives an agent that is replaced by one with another configuration.
type desk struct {
	server *control.Server
	agent  atomic.Pointer[agent.Agent] // at work now; nil before the first and between two
	store  *checkpoint.Store
	since  time.Time
	names  atomic.Pointer[names] // of the agent's sources
	// history is what outputs took in the last day, also of agents before this one.
	history *page.History
	// reload takes the changed configuration, or says why not; nil where this
	// process can't.
	reload func(ctx context.Context) error
}

// newDesk makes a desk with all routes. Another command's routes are added here.
func newDesk(store *checkpoint.Store, log zerolog.Logger) *desk {
	d := &desk{server: control.NewServer(log), store: store, since: time.Now().UTC(), history: new(page.History)}
	d.server.Handle("GET /v1/status", func(http.ResponseWriter, *http.Request) (any, error) { return d.status() })
	d.server.Handle("GET /v1/parked", d.parked)
	d.server.Handle("POST /v1/parked/retry", d.order)
	d.server.Handle("POST /v1/parked/skip", d.order)
	d.server.Handle("POST /v1/reload", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		if d.reload == nil {
			return nil, &control.StatusError{Status: http.StatusNotImplemented, Err: errors.New("this agent can't take another configuration while it runs: start it again")}
		}
		if err := d.reload(r.Context()); err != nil {
			return nil, &control.StatusError{Status: http.StatusUnprocessableEntity, Err: err}
		}
		return struct {
			Schema int `json:"schema"`
		}{control.Schema}, nil
	})
	d.resyncRoutes()
	return d
}

// takes makes an agent the one that is asked; nil: none.
func (d *desk) takes(a *agent.Agent, conf *config.Config) {
	n := names{}
	if conf != nil {
		n = sourceNames(conf)
	}
	d.names.Store(&n)
	d.agent.Store(a)
}

// status tells how the agent does.
func (d *desk) status() (*control.Status, error) {
	s, err := d.snapshot()
	if err != nil {
		return nil, err
	}
	return s.Status, nil
}

// snapshot is the status with a count of what is parked.
func (d *desk) snapshot() (*control.Snapshot, error) {
	a, err := d.current()
	if err != nil {
		return nil, err
	}
	t, size, err := tally(d.store)
	if err != nil {
		return nil, err
	}
	st := &control.Status{
		Schema: control.Schema, At: time.Now().UTC(), Status: a.Status(t), Checkpoint: size,
		Agent: control.Process{Running: true, PID: os.Getpid(), Version: thisBuild().Version, Since: &d.since},
	}
	all, err := a.Resyncs()
	if err != nil {
		return nil, err
	}
	st.Jobs, err = json.Marshal(jobsOf(all))
	return &control.Snapshot{Status: st, Parked: t}, err
}

// parked lists what is parked.
func (d *desk) parked(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, err := parkedQuery(r)
	if err != nil {
		return nil, err
	}
	n := names{}
	if p := d.names.Load(); p != nil {
		n = *p
	}
	return listParked(d.store, n, f)
}

// order carries out what is to be done with parked entries.
func (d *desk) order(w http.ResponseWriter, r *http.Request) (any, error) {
	var o control.Order
	if err := control.Read(w, r, &o); err != nil {
		return nil, err
	}
	skip := strings.HasSuffix(r.URL.Path, "/skip")
	if err := checkOrder(&o, skip); err != nil {
		return nil, &control.StatusError{Status: http.StatusBadRequest, Err: err}
	}
	a, err := d.current()
	if err != nil {
		return nil, err
	}
	done, err := a.Order(r.Context(), agent.Order{IDs: o.IDs, All: o.All, Reason: o.Reason, Skip: skip, Remark: o.Remark})
	if err != nil {
		return nil, err
	}
	return ordered(done, *d.names.Load()), nil
}

// current returns the agent at work, or the error to answer with if there is
// none at this moment.
func (d *desk) current() (*agent.Agent, error) {
	if a := d.agent.Load(); a != nil {
		return a, nil
	}
	return nil, &control.StatusError{Status: http.StatusServiceUnavailable, Err: errors.New("the agent is starting or stopping: ask again in a moment")}
}

// open serves the control socket of a state directory, which this process
// holds, until stop is called. An agent that can't be asked works all the same.
func (d *desk) open(ctx context.Context, stateDir string, log zerolog.Logger) (stop func()) {
	l, err := control.Listen(stateDir)
	if err != nil {
		log.Warn().Err(err).Str("remedy", fault.HintOf(err)).Msg("the agent works, but can't be asked or told anything")
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.server.Serve(ctx, l); err != nil {
			log.Error().Err(err).Msg("the control socket is closed: the agent works, but can't be asked or told anything")
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// connect finds the agent that runs. Without one it returns neither a client
// nor an error: the command is to open the state itself.
func connect(c *cobra.Command, conf *config.Config) (*control.Client, error) {
	client, err := control.Connect(c.Context(), conf.Agent.StateDir)
	if err == nil {
		return client, nil
	}
	if errors.Is(err, control.ErrLeft) {
		fmt.Fprintf(c.ErrOrStderr(), "trailpoll: %v\n", err)
	}
	if errors.Is(err, control.ErrNoAgent) {
		return nil, nil
	}
	return nil, failed(err)
}
