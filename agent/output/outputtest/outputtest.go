// Package outputtest is the conformance suite that every output passes, and
// every fake that stands in for one: what a batch must look like when it
// arrives, when Send may return nil, which errors mean what.
//
// A test makes an output and a receiver that is on its other end:
//
//	outputtest.Run(t, outputtest.Suite{
//		New:    func(t *testing.T) (outputtest.Output, outputtest.Receiver) { … },
//		Faults: []outputtest.Case{{Fault: outputtest.Fault{Mode: outputtest.Refuse}, Kind: fault.Held}},
//	})
package outputtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Output is what is tested. It is the agent's interface of the same name.
type Output interface {
	Send(ctx context.Context, b *record.Batch) error
	Close() error
}

// Receiver is the other end of an Output. It is safe for concurrent use. Inbox
// implements the first two methods.
type Receiver interface {
	// Records returns what has arrived, in the order of its arrival. The caller
	// must not change it.
	Records() [][]byte
	// Await blocks until n records have arrived.
	Await(ctx context.Context, n int) error
	// Fail makes all that is sent from now on meet the fault; the zero Fault
	// heals it.
	Fail(f Fault)
}

// Mode is how a receiver fails.
type Mode int

// The modes.
const (
	None        Mode = iota
	Refuse           // takes no connection
	ResetBefore      // breaks the connection before it has taken a record
	ResetAfter       // takes the records, then breaks the connection without an answer
	Hang             // takes the records and never answers
	Status           // answers Fault.Status and takes nothing
)

// Fault is one way to fail.
type Fault struct {
	Mode   Mode
	Status int // with Status
}

// String names the fault as a test's name does.
func (f Fault) String() string {
	names := [...]string{"none", "refuse", "reset-before", "reset-after", "hang", "status"}
	if f.Mode == Status {
		return fmt.Sprintf("status-%d", f.Status)
	}
	return names[f.Mode]
}

// Case is a fault and what Send must make of it.
type Case struct {
	Fault Fault
	Kind  fault.Kind
	Hint  bool // the error must say what an operator can do
}

// Suite describes an output to Run.
type Suite struct {
	// New returns an output and its receiver, which the test's cleanup ends.
	// The output's timeout, if it has one, should be ten seconds or more, so
	// that a busy machine is no fault.
	New func(t *testing.T) (Output, Receiver)
	// NewForFault is New for the test of a fault, nil where that doesn't differ:
	// an output needs a short timeout for Hang alone, and one that confirms what
	// stood for a while needs a longer while there.
	NewForFault func(t *testing.T, f Fault) (Output, Receiver)
	// Connections is how many goroutines may call Send at once.
	Connections int
	// Faults are what the receiver can do. Cancelling a Send is tested if Hang is
	// among them.
	Faults []Case
	// MaxRecord is the longest record that can be sent, in bytes; 0 = any.
	MaxRecord int
	// Unacknowledged: nil from Send doesn't mean that the receiver's process has
	// the batch already: with UDP nothing does, with TCP its kernel has it.
	Unacknowledged bool
}

// patience is how long anything may take; only a test that fails waits for it.
const patience = 20 * time.Second

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	t.Run("TestInvariant7_11_OddRecordsPassUnchanged", s.odd)
	t.Run("TestInvariant7_AnyRecordsPassUnchanged", s.property)
	t.Run("concurrent batches", s.concurrent)
	t.Run("close", s.closing)
	for _, c := range s.Faults {
		t.Run("TestInvariant1_NilOnlyWhenTaken/"+c.Fault.String(), func(t *testing.T) { s.fault(t, c) })
		if c.Fault.Mode == Hang {
			t.Run("cancel", s.cancel)
		}
	}
	t.Run("cancelled before", s.cancelled)
}

// begin makes the pair and sees to it that nothing is left running.
func (s Suite) begin(t *testing.T) (Output, Receiver) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	// Runs after the cleanups that New registers.
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	out, in := s.New(t)
	t.Cleanup(func() {
		if err := out.Close(); err != nil {
			t.Errorf("closing the output: %v", err)
		}
	})
	return out, in
}

// send hands a copy of the records to the output and spoils the copy when Send
// has returned, since the memory is the agent's again then.
func send(ctx context.Context, out Output, records []record.Record) error {
	b := &record.Batch{}
	for _, r := range records {
		r.Raw, r.EventID, r.EventTime = slices.Clone(r.Raw), slices.Clone(r.EventID), slices.Clone(r.EventTime)
		b.Add(r)
	}
	err := out.Send(ctx, b)
	for _, r := range b.Records {
		for _, p := range [][]byte{r.Raw, r.EventID, r.EventTime} {
			for i := range p {
				p[i] = '!'
			}
		}
	}
	clear(b.Records)
	return err
}

// failer is testing.TB and rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// arrived checks that what arrived after the first skip records are these, byte
// for byte and in order.
func (s Suite) arrived(t failer, in Receiver, skip int, records []record.Record) {
	t.Helper()
	if s.Unacknowledged {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := in.Await(ctx, skip+len(records)); err != nil {
			t.Fatalf("%d of %d records arrived: %v", len(in.Records())-skip, len(records), err)
		}
	}
	got := in.Records()[skip:]
	if len(got) != len(records) {
		t.Fatalf("%d records arrived, want %d", len(got), len(records))
	}
	for i, r := range records {
		if !bytes.Equal(got[i], r.Raw) {
			t.Fatalf("record %d arrived as\n%.300q\nwant\n%.300q", i, got[i], r.Raw)
		}
	}
}

func (s Suite) odd(t *testing.T) {
	out, in := s.begin(t)
	records := OddRecords()
	if s.MaxRecord > 0 {
		records = slices.DeleteFunc(records, func(r record.Record) bool { return len(r.Raw) > s.MaxRecord })
	}
	n := 0
	for _, r := range records {
		if err := send(t.Context(), out, []record.Record{r}); err != nil {
			t.Fatalf("sending %.100q: %v", r.Raw, err)
		}
		s.arrived(t, in, n, []record.Record{r})
		n++
	}
	if err := send(t.Context(), out, records); err != nil {
		t.Fatalf("sending all at once: %v", err)
	}
	s.arrived(t, in, n, records)
}

func (s Suite) property(t *testing.T) {
	out, in := s.begin(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		records := rapid.SliceOfN(anyRecord(), 1, 20).Draw(rt, "records")
		if err := send(t.Context(), out, records); err != nil {
			rt.Fatalf("sending: %v", err)
		}
		s.arrived(rt, in, n, records)
		n += len(records)
	})
}

func (s Suite) concurrent(t *testing.T) {
	out, in := s.begin(t)
	const batches, size = 20, 15
	want := map[string]int{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for w := range max(s.Connections, 1) {
		wg.Go(func() {
			for b := range batches {
				records := Numbered(fmt.Sprintf("w%d-b%d", w, b), size)
				if err := send(t.Context(), out, records); err != nil {
					t.Errorf("sending: %v", err)
					return
				}
				if s.Unacknowledged { // its receiver's buffer is small
					mu.Lock()
					err := in.Await(t.Context(), len(want)+size)
					mu.Unlock()
					if err != nil {
						t.Errorf("waiting: %v", err)
					}
				}
				mu.Lock()
				for _, r := range records {
					want[string(r.Raw)]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got := in.Records()
	if len(got) != len(want) {
		t.Fatalf("%d records arrived, want %d", len(got), len(want))
	}
	for _, r := range got {
		want[string(r)]--
	}
	for r, n := range want {
		if n != 0 {
			t.Fatalf("%d too few of %s", n, r)
		}
	}
}

func (s Suite) closing(t *testing.T) {
	out, _ := s.begin(t)
	if err := send(t.Context(), out, Numbered("before", 3)); err != nil {
		t.Fatalf("sending: %v", err)
	}
	for range 2 {
		if err := out.Close(); err != nil {
			t.Fatalf("closing: %v", err)
		}
	}
	if err := send(t.Context(), out, Numbered("after", 3)); err == nil {
		t.Fatal("Send returned nil after Close")
	}
}

// fault checks what Send makes of a fault, that it never says nil for what did
// not arrive, and that the output works again when the receiver does.
func (s Suite) fault(t *testing.T, c Case) {
	if s.NewForFault != nil {
		s.New = func(t *testing.T) (Output, Receiver) { return s.NewForFault(t, c.Fault) }
	}
	out, in := s.begin(t)
	if err := send(t.Context(), out, Numbered("healthy", 3)); err != nil {
		t.Fatalf("sending to a healthy receiver: %v", err)
	}
	s.arrived(t, in, 0, Numbered("healthy", 3))
	in.Fail(c.Fault)
	records := Numbered("faulty", 5)
	// Twice: the first may meet the fault on a connection that stood before.
	for range 2 {
		err := send(t.Context(), out, records)
		if err == nil {
			t.Fatal("Send returned nil from a receiver that took nothing or said nothing")
		}
		if e, ok := errors.AsType[*fault.Error](err); !ok {
			t.Fatalf("the error is a %T and no *fault.Error: %v", err, err)
		} else if len(e.Records) > 0 {
			t.Fatalf("the error names records, though none was at fault: %v", e.Records)
		}
	}
	err := send(t.Context(), out, records)
	if got := fault.KindOf(err); got != c.Kind {
		t.Fatalf("the error is %v, want %v: %v", got, c.Kind, err)
	}
	if c.Hint && fault.HintOf(err) == "" {
		t.Fatalf("the error has no hint: %v", err)
	}
	in.Fail(Fault{})
	s.recover(t, out, in, records)
}

// recover sends until the output works again, and checks that all is there.
func (s Suite) recover(t *testing.T, out Output, in Receiver, records []record.Record) {
	t.Helper()
	var err error
	var before int
	for range 3 { // connections that the fault left behind may take one each
		before = len(in.Records())
		if err = send(t.Context(), out, records); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("sending after the receiver is healthy again: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		// A connection that was given up may still bring what it held, in between.
		got := in.Records()
		missing := records
		for _, raw := range got[before:] {
			if len(missing) > 0 && bytes.Equal(raw, missing[0].Raw) {
				missing = missing[1:]
			}
		}
		if len(missing) == 0 {
			return
		}
		if !s.Unacknowledged {
			t.Fatalf("Send returned nil, and %.300q did not arrive in its turn", missing[0].Raw)
		}
		if err := in.Await(ctx, len(got)+1); err != nil {
			t.Fatalf("Send returned nil, and %.300q did not arrive in its turn\n%v", missing[0].Raw, err)
		}
	}
}

func (s Suite) cancel(t *testing.T) {
	out, in := s.begin(t)
	in.Fail(Fault{Mode: Hang})
	records := Numbered("cancelled", 200)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := send(ctx, out, records)
	if err == nil {
		t.Fatal("Send returned nil from a receiver that said nothing")
	}
	if !errors.Is(err, context.DeadlineExceeded) || fault.KindOf(err) != fault.Temporary {
		t.Fatalf("the error is neither temporary nor that of the context: %v", err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Fatalf("Send returned %v after its context ended", d-100*time.Millisecond)
	}
	in.Fail(Fault{})
	s.recover(t, out, in, records)
}

func (s Suite) cancelled(t *testing.T) {
	out, in := s.begin(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := send(ctx, out, Numbered("never", 3)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Send with a context that has ended: %v", err)
	}
	if n := len(in.Records()); n != 0 {
		t.Fatalf("%d records arrived all the same", n)
	}
	s.recover(t, out, in, Numbered("after", 3))
}
