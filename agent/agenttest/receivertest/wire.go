package receivertest

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Wire is a network between a sender and a receiver that can be cut: a TCP
// proxy on loopback. Its methods may be called from any goroutine.
type Wire struct {
	to string
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	stuck bool // takes what comes and passes nothing on
	conns map[net.Conn]bool
}

// NewWire starts a wire to a host and port.
func NewWire(to string) (*Wire, error) {
	ln, err := listen("")
	if err != nil {
		return nil, err
	}
	w := &Wire{to: to, ln: ln, conns: map[net.Conn]bool{}}
	w.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // closed
			}
			w.wg.Go(func() { w.join(c) })
		}
	})
	return w, nil
}

// Addr is the host and port of the near end.
func (w *Wire) Addr() string { return w.ln.Addr().String() }

// Close ends the wire and all connections.
func (w *Wire) Close() error {
	err := w.ln.Close()
	w.Cut(0)
	w.wg.Wait()
	if err != nil {
		return fmt.Errorf("closing a wire: %w", err)
	}
	return nil
}

// Cut resets all connections at both ends. With silence, what is sent is first
// swallowed for so long, as a network does whose end nobody was told of.
func (w *Wire) Cut(silence time.Duration) {
	if silence > 0 {
		w.mu.Lock()
		w.stuck = true
		w.mu.Unlock()
		<-time.After(silence)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stuck = false
	for c := range w.conns {
		reset(c)
	}
}

func (w *Wire) join(near net.Conn) {
	far, err := net.Dial("tcp", w.to)
	if err != nil {
		reset(near)
		return
	}
	w.mu.Lock()
	w.conns[near], w.conns[far] = true, true
	w.mu.Unlock()
	var wg sync.WaitGroup
	pass := func(dst, src net.Conn) {
		_, _ = io.Copy(through{w, dst}, struct{ io.Reader }{src})
		reset(dst)
		reset(src)
	}
	wg.Go(func() { pass(far, near) })
	wg.Go(func() { pass(near, far) })
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, near)
	delete(w.conns, far)
}

// through drops what is written while the wire is stuck. After Cut the
// connection is broken, so that nothing follows what was dropped.
type through struct {
	w  *Wire
	to net.Conn
}

func (t through) Write(p []byte) (int, error) {
	t.w.mu.Lock()
	stuck := t.w.stuck
	t.w.mu.Unlock()
	if stuck {
		return len(p), nil
	}
	return t.to.Write(p)
}
