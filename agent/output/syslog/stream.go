package syslog

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// stream sends frames over one connection at a time.
type stream struct {
	turns
	route  *route
	format *formatter
	delay  time.Duration
	link   *link // nil until needed; kept when broken, until the next is made
	// leaving is the link that was used before the first address could be had
	// again: what is outstanding there is still waited for. nil for none.
	leaving *link
}

// write writes the batch. Its confirmation comes from the link's ledger.
func (s *stream) write(ctx context.Context, b *record.Batch) (record.Confirmation, error) {
	ctx, done, err := s.take(ctx)
	if err != nil {
		return nil, &fault.Error{Op: s.route.op(), Err: err}
	}
	defer done()
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	out, err := s.link.send(ctx, s.format, b)
	if err != nil {
		if ctx.Err() == nil {
			s.route.leave()
		}
		s.drop()
		return nil, err
	}
	return s.link.ledger.add(out.err(s.link.t.op)), nil
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
	w, err := t.dial(ctx, s.route.timeout)
	if err != nil {
		return nil, err
	}
	l := &link{wire: w, ledger: newLedger(ledgerConfig{
		delay:    s.delay,
		patience: s.route.timeout,
		sent:     w.raw.sent.Load,
		queued:   queueOf(w.raw.Conn),
		works:    t.tls.Works,
	})}
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
	*wire
	ledger *ledger
}

func (l *link) start() {
	l.listen(func() { l.fail(l.drain()) })
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
	l.ledger.fail(l.t.failed(peerClosed(err)))
	_ = l.raw.Close() // it is broken already
}

// close ends the link in order.
func (l *link) close() error {
	l.ledger.fail(&fault.Error{Op: l.t.op, Err: errClosed})
	return l.wire.close()
}

// send writes the batch's frames and returns the records that it left out. When
// it returns an error the link is broken: the receiver may have half a frame.
func (l *link) send(ctx context.Context, f *formatter, b *record.Batch) (leftOut, error) {
	defer l.raw.during(ctx)()
	var out leftOut
	var err error
	for i := range b.Records {
		frame, why, kind := f.frame(&b.Records[i])
		if why != "" {
			out.add(i, why, kind)
			continue
		}
		if _, err = l.w.Write(frame); err != nil {
			break
		}
	}
	if err == nil {
		err = l.w.Flush()
	}
	if err != nil {
		err = l.why(ctx, err, l.ledger.broken)
		l.fail(err)
		return leftOut{}, l.t.failed(err)
	}
	return out, nil
}
