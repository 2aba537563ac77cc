package syslog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// stream sends frames over one connection at a time.
type stream struct {
	delay time.Duration

	stopped context.Context // ends with close
	stop    context.CancelFunc

	mu     sync.Mutex // held while connecting and writing
	route  *route
	format *formatter
	link   *link // nil until needed; kept when broken, until the next is made
	// leaving is the link that was used before the first address could be had
	// again: what is outstanding there is still waited for. nil for none.
	leaving *link
}

// write writes the batch. Its confirmation comes from the link's ledger.
func (s *stream) write(ctx context.Context, b *record.Batch) (record.Confirmation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped.Err() != nil {
		return nil, &fault.Error{Op: s.route.op(), Err: errClosed}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.stopped, func() { cancel(errClosed) })()
	if ctx.Err() != nil {
		return nil, &fault.Error{Op: s.route.op(), Err: context.Cause(ctx)}
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	refused, kind, err := s.link.send(ctx, s.format, b)
	if err != nil {
		if ctx.Err() == nil {
			s.route.leave()
		}
		s.drop()
		return nil, err
	}
	return s.link.ledger.add(leftOut(s.link.t.op, refused, kind)), nil
}

// connect sees to it that there is a link.
func (s *stream) connect(ctx context.Context) error {
	if s.leaving != nil && s.leaving.ledger.idle() {
		_ = s.leaving.close() // nobody waits for anything there
		s.leaving = nil
	}
	if s.link != nil && s.link.ledger.broken() != nil {
		// Whoever waited on it was told. A receiver that closes idle
		// connections is no trouble: nothing was outstanding.
		if s.link.ledger.lost() {
			s.route.leave()
		}
		s.drop()
	}
	open := func(ctx context.Context, t *target) error {
		l, err := s.open(ctx, t)
		if err != nil {
			return err
		}
		if s.link != nil {
			if s.leaving != nil {
				_ = s.leaving.close() // what is outstanding there is told so
			}
			s.leaving = s.link
		}
		s.link = l
		return nil
	}
	if s.link == nil {
		return s.route.connect(ctx, open)
	}
	s.route.goHome(ctx, open)
	return nil
}

// drop forgets a link that is broken.
func (s *stream) drop() {
	s.link.end()
	s.link = nil
}

func (s *stream) open(ctx context.Context, t *target) (*link, error) {
	conn, raw, err := t.dial(ctx, s.route.timeout)
	if err != nil {
		return nil, err
	}
	l := &link{
		t:    t,
		conn: conn,
		raw:  raw,
		w:    bufio.NewWriterSize(conn, 64<<10),
		read: make(chan struct{}),
		ledger: newLedger(ledgerConfig{
			delay:    s.delay,
			patience: s.route.timeout,
			sent:     raw.sent.Load,
			queued:   queueOf(raw.Conn),
			works:    t.tls.Works,
		}),
	}
	l.start()
	return l, nil
}

func (s *stream) close() error {
	s.stop() // a write under way ends
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, l := range []*link{s.link, s.leaving} {
		if l != nil {
			err = errors.Join(err, l.close())
		}
	}
	s.link, s.leaving = nil, nil
	return err
}

// link is one connection: its goroutines are a reader, which finds out when the
// receiver ends it, and the ledger's.
type link struct {
	t      *target
	conn   net.Conn // what frames are written to: raw, or TLS over it
	raw    *counter
	w      *bufio.Writer
	ledger *ledger
	read   chan struct{} // closed when the reader has ended
	wg     sync.WaitGroup
}

func (l *link) start() {
	l.wg.Go(func() {
		defer close(l.read)
		l.fail(l.drain())
	})
	l.wg.Go(func() {
		if err := l.ledger.run(); err != nil {
			l.fail(err)
		}
	})
}

// drain reads until the connection ends. A syslog receiver has nothing to say;
// what it says all the same is dropped. With TLS 1.3 this is the only place
// where a refused client certificate shows (RFC 8446 section 4.4.2.4: the
// client is done with its handshake before the server has seen it).
func (l *link) drain() error {
	_, err := io.Copy(io.Discard, l.conn)
	if err == nil {
		err = io.EOF
	}
	return err
}

// fail breaks the link: all that waits to be confirmed fails with err.
//
// The connection is closed in the ordinary way and not reset, so that what the
// receiver's kernel already has, and what was confirmed, still reaches it. TLS
// sends no close_notify here: the connection's state is unknown.
func (l *link) fail(err error) {
	if errors.Is(err, io.EOF) {
		err = errPeerClosed
	}
	l.ledger.fail(l.t.failed(err))
	_ = l.raw.Close() // it is broken already
}

var errPeerClosed = fmt.Errorf("the receiver closed the connection: %w", io.EOF)

// end waits for the goroutines of a link that is broken.
func (l *link) end() {
	_ = l.raw.Close() // may be closed already
	l.wg.Wait()
}

// close ends the link in order.
func (l *link) close() error {
	l.ledger.fail(&fault.Error{Op: l.t.op, Err: errClosed})
	err := l.conn.Close()
	l.end()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// send writes the batch's frames and returns the records that it left out. When
// it returns an error the link is broken: the receiver may have half a frame.
func (l *link) send(ctx context.Context, f *formatter, b *record.Batch) ([]fault.RecordRefusal, fault.Kind, error) {
	defer l.raw.during(ctx)()
	var refused []fault.RecordRefusal
	var err error
	worst := fault.Refused
	for i := range b.Records {
		frame, why, kind := f.frame(&b.Records[i])
		if why != "" {
			refused = append(refused, fault.RecordRefusal{Index: i, Answer: why})
			if kind == fault.TooLarge {
				worst = kind
			}
			continue
		}
		if _, err = l.w.Write(frame); err != nil {
			break
		}
	}
	if err == nil {
		err = l.w.Flush()
	}
	if err == nil {
		return refused, worst, nil
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("the receiver took nothing for %v: %w", l.raw.timeout, err)
	default:
		// A write fails because the connection is gone; why it is gone (an
		// alert, for one) the reader knows, if it was told.
		select {
		case <-l.read:
		case <-time.After(time.Second):
		}
		if told := l.ledger.broken(); told != nil {
			err = told
		}
	}
	l.fail(err)
	return nil, 0, l.t.failed(err)
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
