package syslog

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errClosed     = errors.New("the output is closed")
	errPeerClosed = fmt.Errorf("the receiver closed the connection: %w", io.EOF)
)

// turns lets one batch after the other use what is connected, until it is closed.
type turns struct {
	mu      sync.Mutex      // held while connecting and sending
	stopped context.Context // ends with stop: a batch under way ends, and no other begins
	stop    context.CancelFunc
}

func newTurns() turns {
	stopped, stop := context.WithCancel(context.Background())
	return turns{stopped: stopped, stop: stop}
}

// take waits until the batches before are through. The context that it returns
// ends with ctx and with stop; done lets the next batch begin.
func (t *turns) take(ctx context.Context) (_ context.Context, done func(), err error) {
	t.mu.Lock()
	if t.stopped.Err() != nil {
		t.mu.Unlock()
		return nil, nil, errClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	forget := context.AfterFunc(t.stopped, func() { cancel(errClosed) })
	done = func() {
		forget()
		cancel(nil)
		t.mu.Unlock()
	}
	if ctx.Err() != nil {
		defer done()
		return nil, nil, context.Cause(ctx)
	}
	return ctx, done, nil
}

// wire is a connection to a receiver, what is to be written to it, and the
// goroutine that reads it.
type wire struct {
	t     *target
	conn  net.Conn // what frames are written to: raw, or TLS over it
	raw   *counter
	w     *bufio.Writer
	ended chan struct{} // closed when the reader has ended
	wg    sync.WaitGroup
}

// dial connects over TCP, with TLS where the target has it.
func (t *target) dial(ctx context.Context, timeout time.Duration) (*wire, error) {
	tcp, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, err
	}
	raw := &counter{Conn: tcp, timeout: timeout}
	w := &wire{t: t, conn: raw, raw: raw, ended: make(chan struct{})}
	if t.tls != nil {
		secured := tls.Client(raw, t.tls.Conf)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = tcp.Close() // the handshake's error says more
			return nil, err
		}
		w.conn = secured
	}
	w.w = bufio.NewWriterSize(w.conn, 64<<10)
	return w, nil
}

// listen starts the goroutine that reads; end and close wait for it.
func (w *wire) listen(read func()) {
	w.wg.Go(func() {
		defer close(w.ended)
		read()
	})
}

// why says why a write failed. A write fails because the connection is gone; why
// it is gone (an alert, for one) the reader knows, if it was told: it is waited
// for, and told asked.
func (w *wire) why(ctx context.Context, err error, told func() error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the receiver took nothing for %v: %w", w.raw.timeout, err)
	}
	select {
	case <-w.ended:
	case <-time.After(time.Second):
	}
	if why := told(); why != nil {
		return why
	}
	return err
}

// end waits for the goroutines of a connection that is broken.
func (w *wire) end() {
	_ = w.raw.Close() // may be closed already
	w.wg.Wait()
}

// close ends the connection in order, with TLS saying so.
func (w *wire) close() error {
	err := w.conn.Close()
	w.end()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// peerClosed says in words that the receiver ended the connection, where err is that.
func peerClosed(err error) error {
	if errors.Is(err, io.EOF) {
		return errPeerClosed
	}
	return err
}

// counter is a connection that counts what the kernel took of our bytes and
// gives each write a deadline of its own: a slow receiver may take its time
// over a batch as long as it takes something.
type counter struct {
	net.Conn
	timeout time.Duration
	sent    atomic.Int64
	ctx     atomic.Pointer[context.Context] // of the batch being written; nil for none
}

// during makes writes fail when ctx ends, until the returned function is called.
func (c *counter) during(ctx context.Context) (done func()) {
	c.ctx.Store(&ctx)
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetWriteDeadline(time.Unix(1, 0)) // can only fail on a closed connection
	})
	return func() {
		stop()
		c.ctx.Store(nil)
	}
}

// Write implements net.Conn. The deadline is set first and ctx looked at then:
// whichever comes first, a ctx that ends makes the write fail.
func (c *counter) Write(p []byte) (int, error) {
	total := 0
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return total, err
		}
		if ctx := c.ctx.Load(); ctx != nil && (*ctx).Err() != nil {
			return total, context.Cause(*ctx)
		}
		n, err := c.Conn.Write(p[total:min(len(p), total+64<<10)])
		total += n
		c.sent.Add(int64(n))
		if err != nil || total == len(p) {
			return total, err
		}
	}
}
