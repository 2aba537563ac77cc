package agenttest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Stream is an Output whose acknowledgement comes some time after the write,
// as over plain TCP: what was written when the connection breaks may have
// arrived, or not.
type Stream struct {
	Output
	// Delay is how long after the write a batch is confirmed.
	Delay time.Duration
	// Arrives says of each batch that is written but never confirmed whether
	// it arrived all the same; nil = never.
	Arrives func() bool
	// Oversize and Refuses, if not nil, say which records can't be taken, or are
	// refused; it is said when the batch would be confirmed.
	Oversize, Refuses func(r *record.Record) bool

	mu      sync.Mutex
	waiting []*confirmation
}

type confirmation struct {
	batch *record.Batch
	done  chan error
}

func (c *confirmation) Wait(ctx context.Context) error {
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errBroken = &fault.Error{Kind: fault.Temporary, Err: errors.New("the connection broke")}

// Write implements agent.Confirmer.
func (s *Stream) Write(ctx context.Context, b *record.Batch) (record.Confirmation, error) {
	if s.Fail != nil {
		if f := s.Fail(b); f.Err != nil {
			return nil, f.Err
		}
	}
	// The batch's memory is the agent's again when this returns.
	own := &record.Batch{}
	for _, r := range b.Records {
		r.Raw = slices.Clone(r.Raw)
		own.Add(r)
	}
	c := &confirmation{own, make(chan error, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, c)
	s.mu.Unlock()
	time.AfterFunc(s.Delay, func() {
		s.mu.Lock()
		i := slices.Index(s.waiting, c)
		if i >= 0 {
			s.waiting = slices.Delete(s.waiting, i, i+1)
		}
		s.mu.Unlock()
		if i >= 0 {
			c.done <- s.arrive(own)
		}
	})
	return c, nil
}

// arrive takes a batch, but for what is too large.
func (s *Stream) arrive(b *record.Batch) error {
	kind := fault.Refused
	var refused []fault.RecordRefusal
	for i := range b.Records {
		switch r := &b.Records[i]; {
		case s.Oversize != nil && s.Oversize(r):
			kind = fault.TooLarge
			refused = append(refused, fault.RecordRefusal{Index: i, Answer: "too large"})
		case s.Refuses != nil && s.Refuses(r):
			refused = append(refused, fault.RecordRefusal{Index: i, Answer: "no"})
		}
	}
	s.take(without(b, refused))
	if refused != nil {
		return &fault.Error{Kind: kind, Err: errors.New("refused"), Records: refused}
	}
	return nil
}

// Send implements agent.Output: it writes and waits.
func (s *Stream) Send(ctx context.Context, b *record.Batch) error {
	c, err := s.Write(ctx, b)
	if err != nil {
		return err
	}
	return c.Wait(ctx)
}

// Break breaks the connection: nothing that waits is confirmed.
func (s *Stream) Break() {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, c := range waiting {
		if s.Arrives != nil && s.Arrives() {
			_ = s.arrive(c.batch)
		}
		c.done <- errBroken
	}
}
