package outputtest_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

// memory is the smallest output that there can be, and its own receiver.
type memory struct {
	outputtest.Inbox
	mu     sync.Mutex
	fault  outputtest.Fault
	closed bool
}

func (m *memory) Fail(f outputtest.Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *memory) Send(ctx context.Context, b *record.Batch) error {
	m.mu.Lock()
	f, closed := m.fault, m.closed
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return &fault.Error{Err: err}
	}
	if closed {
		return &fault.Error{Err: errors.New("closed")}
	}
	switch f.Mode {
	case outputtest.Refuse:
		return &fault.Error{Kind: fault.Held, Hint: "start it"}
	case outputtest.ResetBefore:
		return &fault.Error{}
	case outputtest.Status:
		return &fault.Error{Kind: fault.TooLarge}
	}
	records := make([][]byte, len(b.Records))
	for i, r := range b.Records {
		records[i] = r.Raw
	}
	m.Put(records...)
	switch f.Mode {
	case outputtest.Hang:
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		<-ctx.Done()
		return &fault.Error{Err: ctx.Err()}
	case outputtest.ResetAfter:
		return &fault.Error{}
	}
	return nil
}

const patience = 500e6

// The suite itself is sound: an output that does as it should passes it.
func TestSuite(t *testing.T) {
	outputtest.Run(t, outputtest.Suite{
		New: func(*testing.T) (outputtest.Output, outputtest.Receiver) {
			m := new(memory)
			return m, m
		},
		Connections: 4,
		Faults: []outputtest.Case{
			{Fault: outputtest.Fault{Mode: outputtest.Refuse}, Kind: fault.Held, Hint: true},
			{Fault: outputtest.Fault{Mode: outputtest.ResetBefore}, Kind: fault.Temporary},
			{Fault: outputtest.Fault{Mode: outputtest.ResetAfter}, Kind: fault.Temporary},
			{Fault: outputtest.Fault{Mode: outputtest.Hang}, Kind: fault.Temporary},
			{Fault: outputtest.Fault{Mode: outputtest.Status, Status: 413}, Kind: fault.TooLarge},
		},
	})
}
