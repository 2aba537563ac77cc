package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// orders are what the agent is told while it runs: by signals, over the
// control socket, or by the service manager.
type orders struct {
	stop   chan string       // the first: stop in order; the second: at once. Says who ordered it
	hup    chan struct{}     // take the changed configuration
	reload chan chan<- error // the same, and say how it went
}

func newOrders() *orders {
	return &orders{stop: make(chan string, 2), hup: make(chan struct{}, 1), reload: make(chan chan<- error)}
}

// orderStop orders to stop, and never waits.
func (o *orders) orderStop(who string) {
	select {
	case o.stop <- who:
	default: // the second has been ordered, which is all that can be
	}
}

// orderReload orders to take the changed configuration, and never waits.
func (o *orders) orderReload() {
	select {
	case o.hup <- struct{}{}:
	default: // one that was ordered and has not begun will see the same file
	}
}

// askReload orders to take the changed configuration and waits until it is in
// use, or for the reason why it is not.
func (o *orders) askReload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case o.reload <- answer:
	case <-ctx.Done():
		return errStopping
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return errStopping
	}
}

// listen makes orders of signals until the function that it returns is called.
func (o *orders) listen(reloads bool) (end func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if reloads {
		signal.Notify(signals, syscall.SIGHUP)
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGHUP {
					o.orderReload()
				} else {
					o.orderStop(s.String())
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}
