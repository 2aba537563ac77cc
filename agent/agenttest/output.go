package agenttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Output is a receiver in memory. Its zero value takes everything. The hooks
// must be set before it is used; they are called without its lock.
type Output struct {
	// Fail, if not nil, is asked for each batch.
	Fail func(b *record.Batch) Failure
	// Latency is how long each Send takes.
	Latency time.Duration

	mu     sync.Mutex
	taken  map[string]int    // by bucket/key#index
	bytes  map[string]string // what was taken first under that name
	sends  int
	batch  int // records of the largest batch
	faults []string
}

// Name names a record by where it stands, as the tests do.
func Name(r *record.Record) string {
	return fmt.Sprintf("%s/%s#%d", r.Object.Bucket, r.Object.Key, r.Index)
}

// Send implements agent.Output.
func (o *Output) Send(ctx context.Context, b *record.Batch) error {
	if o.Latency > 0 {
		t := time.NewTimer(o.Latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var f Failure
	if o.Fail != nil {
		f = o.Fail(b)
	}
	if f.Err != nil && !f.Done {
		o.mu.Lock()
		o.sends++
		o.mu.Unlock()
		if refused := fault.RefusalsOf(f.Err); len(refused) > 0 && len(refused) < len(b.Records) {
			o.take(without(b, refused))
		}
		return f.Err
	}
	o.take(b)
	return f.Err
}

// without returns the batch less the records that are refused: an error that
// names some says that all others were taken.
func without(b *record.Batch, refused []fault.RecordRefusal) *record.Batch {
	var rest record.Batch
	for i, r := range b.Records {
		if !slices.ContainsFunc(refused, func(x fault.RecordRefusal) bool { return x.Index == i }) {
			rest.Add(r)
		}
	}
	return &rest
}

// take notes a batch as taken.
func (o *Output) take(b *record.Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sends++
	o.batch = max(o.batch, len(b.Records))
	if o.taken == nil {
		o.taken, o.bytes = make(map[string]int), make(map[string]string)
	}
	size := 0
	for i := range b.Records {
		r := &b.Records[i]
		size += len(r.Raw)
		n := Name(r)
		o.taken[n]++
		if was, ok := o.bytes[n]; !ok {
			o.bytes[n] = string(r.Raw)
		} else if was != string(r.Raw) {
			o.faults = append(o.faults, n+" came a second time with other bytes")
		}
	}
	if size != b.Bytes {
		o.faults = append(o.faults, fmt.Sprintf("a batch of %d bytes says that it has %d", size, b.Bytes))
	}
}

// Close implements agent.Output.
func (o *Output) Close() error { return nil }

// Taken returns how often each record was taken, by Name.
func (o *Output) Taken() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := make(map[string]int, len(o.taken))
	for k, n := range o.taken {
		c[k] = n
	}
	return c
}

// Raw returns the bytes that were taken under a Name.
func (o *Output) Raw(name string) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.bytes[name]
	return s, ok
}

// Sends returns how many attempts were made.
func (o *Output) Sends() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sends
}

// Largest returns how many records the largest batch had.
func (o *Output) Largest() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.batch
}

// Faults returns what was wrong with what was sent.
func (o *Output) Faults() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.faults...)
}
