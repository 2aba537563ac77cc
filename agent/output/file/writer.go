package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Writer writes batches to a writer that it doesn't own, standard output as a
// rule. A batch is acknowledged when it is written, and synced where the writer
// is a regular file: of what a pipe's reader does with it nothing is known.
type Writer struct {
	w      io.Writer
	render Renderer     // nil = records as they are
	sync   func() error // nil where there is nothing to sync

	// turn holds a token while nobody writes. The write goes on in its own
	// goroutine, since a full pipe can't be interrupted; buf belongs to it.
	turn   chan struct{}
	buf    []byte
	torn   bool // the last write ended in the middle of a line
	closed atomic.Bool
}

const writerOp = "writing to standard output"

// NewWriter returns an output that writes to w what render makes of records; nil
// = the records as they are. Where w is standard output, the
// program must have asked for SIGPIPE (signal.Notify or Ignore): Go ends a
// program otherwise that writes to a pipe whose reader has gone, and the output
// could not be held.
func NewWriter(w io.Writer, render Renderer) *Writer {
	o := &Writer{w: w, render: render, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			o.sync = f.Sync
		}
	}
	return o
}

// Connections is how many goroutines may send at once with use: one.
func (o *Writer) Connections() int { return 1 }

// Send writes the batch. When ctx ends first it returns, while the write, which
// nothing can stop, goes on from memory of its own; the next Send waits for it.
func (o *Writer) Send(ctx context.Context, b *record.Batch) error {
	select {
	case <-ctx.Done():
		return &fault.Error{Op: writerOp, Err: ctx.Err()}
	default:
	}
	select {
	case <-ctx.Done():
		return &fault.Error{Op: writerOp, Err: ctx.Err()}
	case <-o.turn:
	}
	if o.closed.Load() {
		o.turn <- struct{}{}
		return &fault.Error{Op: writerOp, Err: errClosed}
	}
	o.buf = o.buf[:0]
	if o.torn {
		o.buf = append(o.buf, '\n') // so that the torn line doesn't swallow the next
	}
	var refused []fault.RecordRefusal
	var kind fault.Kind
	o.buf, refused, kind = lines(o.buf, b, o.render)
	done := make(chan error, 1)
	go func() {
		err := o.write()
		o.turn <- struct{}{}
		done <- err
	}()
	select {
	case <-ctx.Done():
		return &fault.Error{Op: writerOp, Err: ctx.Err()}
	case err := <-done:
		if err != nil {
			return writerFailed(err)
		}
		return leftOut(writerOp, refused, kind)
	}
}

func (o *Writer) write() error {
	if len(o.buf) == 0 {
		return nil
	}
	n, err := o.w.Write(o.buf)
	if err == nil && n < len(o.buf) {
		err = io.ErrShortWrite
	}
	if n > 0 {
		o.torn = o.buf[min(n, len(o.buf))-1] != '\n'
	}
	if err == nil && o.sync != nil {
		err = o.sync()
	}
	return err
}

// Close makes later calls of Send fail. It leaves the writer open, and doesn't
// wait for a write that nothing can stop.
func (o *Writer) Close() error {
	o.closed.Store(true)
	return nil
}

func writerFailed(err error) error {
	e := &fault.Error{Op: writerOp, Err: err}
	switch {
	case errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe), errors.Is(err, fs.ErrClosed):
		e.Kind, e.Hint = fault.Held, "whoever read the pipe has ended: start it again, together with the agent"
	case isFull(err):
		e.Kind, e.Hint = fault.Held, "the disk is full: make room"
	}
	return e
}
