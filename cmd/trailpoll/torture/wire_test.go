//go:build linux

package torture

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// wire is a port whose connections can become half-open: the peer is gone, and
// nobody is told. Nothing more is read from them, what is written is swallowed,
// and none is ended. A call is taken, as by a host whose kernel still runs, and
// then met with silence.
type wire struct {
	net.Listener
	met   func()        // somebody calls, or speaks to a peer that vanished
	gone  chan struct{} // closed when it vanishes
	once  sync.Once
	mu    sync.Mutex
	conns []*net.TCPConn
}

func newWire(ln net.Listener, met func()) *wire {
	return &wire{Listener: ln, met: met, gone: make(chan struct{})}
}

func (w *wire) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w.met()
	w.mu.Lock()
	defer w.mu.Unlock()
	if t, ok := c.(*net.TCPConn); ok {
		w.conns = append(w.conns, t)
		if w.vanished() {
			_ = t.SetLinger(0)
		}
	}
	return &wireConn{Conn: c, wire: w, closed: make(chan struct{})}, nil
}

// vanish makes all connections half-open, those that come too. When they are
// closed they are reset, as by a host that is up again and knows nothing of them.
func (w *wire) vanish() {
	w.once.Do(func() { close(w.gone) })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.SetLinger(0)
	}
}

func (w *wire) vanished() bool {
	select {
	case <-w.gone:
		return true
	default:
		return false
	}
}

// wireConn is a connection of a wire.
type wireConn struct {
	net.Conn
	wire   *wire
	once   sync.Once
	closed chan struct{}
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.wire.vanished() {
		if n > 0 {
			c.wire.met()
		}
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *wireConn) Write(p []byte) (int, error) {
	if c.wire.vanished() {
		c.wire.met()
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *wireConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A port that vanished reads nothing, answers nothing and ends nothing.
func TestVanish(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var met atomic.Int64
	w := newWire(ln, func() { met.Add(1) })
	defer func() { _ = w.Close() }()
	here, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	there, err := w.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := here.Write(b); err != nil {
		t.Fatal(err)
	}
	if n := met.Load(); n != 1 {
		t.Errorf("met %d times, want the call", n)
	}
	if _, err := there.Read(b); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := there.Read(make([]byte, 1))
		ended <- err
	}()
	w.vanish()
	if _, err := here.Write(b); err != nil {
		t.Errorf("writing to a peer that is gone: %v, want nil: nobody was told", err)
	}
	if _, err := there.Write(b); err != nil {
		t.Errorf("writing as a peer that is gone: %v, want nil", err)
	}
	_ = here.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := here.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading: %v, want no byte and no end", err)
	}
	select {
	case err := <-ended:
		t.Errorf("a peer that is gone has read something: %v", err)
	default:
	}
	_ = there.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading ended: %v", err)
	}
	_ = here.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := here.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("when the peer is back: %v, want a reset", err)
	}
	if n := met.Load(); n != 3 {
		t.Errorf("met %d times, want the call, what came and what was written", n)
	}
}
