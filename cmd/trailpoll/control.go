package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// desk answers what comes over the control socket while the state is held. It
// outlives an agent that is replaced by one with another configuration.
type desk struct {
	server *control.Server
	agent  atomic.Pointer[agent.Agent] // at work now; nil before the first and between two
	// reload takes the changed configuration, or says why not; nil where this
	// process can't.
	reload func(ctx context.Context) error
}

// newDesk makes a desk with all routes. Another command's routes are added here.
func newDesk(log zerolog.Logger) *desk {
	d := &desk{server: control.NewServer(log)}
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
