package main

import (
	"context"

	"github.com/trailpoll/trailpoll/agent"
)

// duty is an agent at work, until it is done or told to stop. It is for one
// goroutine.
type duty struct {
	stop, abort context.CancelFunc
	orders      int // to stop

	ended  chan struct{} // closed when the agent has ended, and then there are:
	result agent.Result
	err    error
}

// begin sets an agent to work; end must be called.
func begin(ctx context.Context, a *agent.Agent) *duty {
	stopped, stop := context.WithCancel(ctx)
	aborted, abort := context.WithCancel(ctx)
	d := &duty{stop: stop, abort: abort, ended: make(chan struct{})}
	go func() { // end waits for it
		defer close(d.ended)
		d.result, d.err = a.Run(stopped, aborted)
	}()
	return d
}

// orderStop tells the agent to stop in order, and the second time to stop at once.
func (d *duty) orderStop() {
	d.stop()
	if d.orders++; d.orders > 1 {
		d.abort()
	}
}

// end sees to it that the agent has ended.
func (d *duty) end() {
	d.stop()
	d.abort()
	<-d.ended
}
