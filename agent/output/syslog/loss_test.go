package syslog

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

// hammer writes batches for as long as it takes until each is acknowledged.
type hammer struct {
	o *Output
	// trust takes a write for an acknowledgement, as a sender does that knows
	// nothing of confirmations.
	trust   bool
	batches int

	mu      sync.Mutex
	queue   []int
	acked   int
	again   int // batches sent again
	changed chan struct{}
}

// hammered is how many records a batch has; ahead, how many batches wait for
// their confirmation at most, so that the stream goes on for a while.
const (
	hammered = 40
	ahead    = 60
)

func newHammer(o *Output, batches int) *hammer {
	h := &hammer{o: o, batches: batches, changed: make(chan struct{}, 1)}
	for i := range batches {
		h.queue = append(h.queue, i)
	}
	return h
}

func hammerBatch(n int) []record.Record {
	return outputtest.Numbered(fmt.Sprintf("b%04d", n), hammered)
}

func (h *hammer) landed(n int, err error) {
	h.mu.Lock()
	if err == nil {
		h.acked++
	} else {
		h.again++
		h.queue = append(h.queue, n)
	}
	h.mu.Unlock()
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *hammer) done() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

func (h *hammer) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, ahead)
	for h.done() < h.batches && ctx.Err() == nil {
		h.mu.Lock()
		n := -1
		if len(h.queue) > 0 {
			n, h.queue = h.queue[0], h.queue[1:]
		}
		h.mu.Unlock()
		if n < 0 {
			select {
			case <-h.changed:
			case <-ctx.Done():
			}
			continue
		}
		slots <- struct{}{}
		c, err := h.o.Write(ctx, batch(hammerBatch(n)))
		if err != nil || c == nil || h.trust {
			h.landed(n, err)
			<-slots
			if err != nil {
				select {
				case <-time.After(20 * time.Millisecond): // there is nobody: leave it to the others
				case <-ctx.Done():
				}
			}
			if c == nil || err != nil {
				continue
			}
			wg.Go(func() { _ = c.Wait(ctx) })
			continue
		}
		wg.Go(func() {
			h.landed(n, c.Wait(ctx))
			<-slots
		})
	}
}

// lossRun sends while something goes wrong ten times, and returns how many
// acknowledged records are not stored and how many batches were sent again.
func lossRun(t *testing.T, d *daemon, listener string, h *hammer, wrong func(i int)) (lost int) {
	t.Helper()
	const times = 10
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { h.run(ctx) })
	for i := range times {
		eventually(ctx, t, "the stream goes on", func() bool { return h.done() >= (i+1)*h.batches/(times+2) })
		wrong(i)
	}
	wg.Wait()
	if h.done() < h.batches {
		t.Fatalf("%d of %d batches", h.done(), h.batches)
	}
	last := outputtest.Numbered("last", 1)
	eventually(ctx, t, "a last record is taken", func() bool { return h.o.Send(ctx, batch(last)) == nil })
	there := map[string]int{}
	eventually(ctx, t, "the last record is stored", func() bool {
		clear(there)
		for _, m := range d.stored(t, listener) {
			if !bytes.Contains(m.Text, []byte(`"probe`)) {
				there[string(m.Text)]++
			}
		}
		return there[string(last[0].Raw)] > 0
	})
	repeated := 0
	for n := range h.batches {
		for _, r := range hammerBatch(n) {
			switch got := there[string(r.Raw)]; {
			case got == 0:
				lost++
			case got > 1:
				repeated += got - 1
			}
			delete(there, string(r.Raw))
		}
	}
	if delete(there, string(last[0].Raw)); len(there) > 0 {
		t.Errorf("%d messages that nobody sent", len(there))
	}
	t.Logf("%d records written, %d lost, %d repeated; %d batches of %d sent again", h.batches*hammered, lost, repeated, h.again, hammered)
	return lost
}

var lossy = []struct {
	listener  string
	transport Transport
}{
	{receivertest.ListenTCP, TCP},
	{receivertest.ListenTLS, TLS},
	{receivertest.ListenRELP, RELP},
	{receivertest.ListenRELPTLS, RELPTLS},
}

func lossConfig(d *daemon, transport Transport, addr string) Config {
	return Config{
		Transport: transport, Addresses: []string{addr}, TLS: d.tls,
		ConfirmDelay: time.Second, Timeout: 10 * time.Second,
	}
}

// rsyslogd is killed with SIGKILL in mid-stream, ten times; over RELP it also
// hangs before. What was acknowledged stands in its file.
func TestInvariant1_RealReceiverKilled(t *testing.T) {
	for _, v := range lossy {
		t.Run(string(v.transport), func(t *testing.T) {
			if v.transport == RELP || v.transport == RELPTLS {
				t.Parallel() // a busy machine makes no difference to RELP
			}
			d := newDaemon(t, receivertest.NewRsyslog)
			h := newHammer(open(t, lossConfig(d, v.transport, d.Addr(v.listener))), 400)
			lost := lossRun(t, d, v.listener, h, func(i int) {
				if (v.transport == RELP || v.transport == RELPTLS) && i%2 == 0 {
					hang(t, d)
				}
				restart(t, d, v.listener, v.transport)
			})
			if lost > 0 {
				t.Errorf("%d records lost", lost)
			}
			if h.again == 0 {
				t.Error("nothing was outstanding at any kill: the test shows nothing")
			}
		})
	}
}

// restart kills the daemon and starts it again. It returns when the daemon
// reads: its kernel takes connections and bytes long before that.
func restart(t *testing.T, d *daemon, listener string, transport Transport) {
	t.Helper()
	d.Kill()
	if err := startDaemon(t.Context(), d.Daemon); err != nil {
		t.Fatal(err)
	}
	o, err := New(lossConfig(d, transport, d.Addr(listener)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.Close() }()
	probe := outputtest.Numbered(fmt.Sprint("probe", time.Now().UnixNano()), 1)
	var sent time.Time
	eventually(t.Context(), t, "the daemon reads", func() bool {
		// What came while it started may be refused, or lost.
		if time.Since(sent) > 2*time.Second {
			if _, err := o.Write(t.Context(), batch(probe)); err == nil {
				sent = time.Now()
			}
		}
		return slices.ContainsFunc(d.stored(t, listener), func(s receivertest.Stored) bool { return bytes.Equal(s.Text, probe[0].Raw) })
	})
}

// hang stops the daemon for longer than what was sent takes to be confirmed.
func hang(t *testing.T, d *daemon) {
	t.Helper()
	if err := d.Pause(); err != nil {
		t.Fatal(err)
	}
	<-time.After(1500 * time.Millisecond) // of the daemon's silence, which nothing else tells
}

// The same for a sender that takes a write for an acknowledgement: it loses
// some. If this fails, the tests above show nothing.
func TestUnconfirmedTCPLoses(t *testing.T) {
	d := newDaemon(t, receivertest.NewRsyslog)
	h := newHammer(open(t, lossConfig(d, TCP, d.Addr(receivertest.ListenTCP))), 4000)
	h.trust = true
	if lost := lossRun(t, d, receivertest.ListenTCP, h, func(int) {
		restart(t, d, receivertest.ListenTCP, TCP)
	}); lost == 0 {
		t.Error("nothing was lost")
	}
}

// What no sender over plain TCP can know: a receiver that hangs for longer than
// the delay, with what its kernel took, and then dies. RELP knows.
func TestHangAndDie(t *testing.T) {
	for _, transport := range []Transport{TCP, RELP} {
		listener := string(transport)
		d := newDaemon(t, receivertest.NewRsyslog)
		conf := lossConfig(d, transport, d.Addr(listener))
		conf.Timeout = time.Second
		o := open(t, conf)
		if err := o.Send(t.Context(), batch(outputtest.Numbered("before", 5))); err != nil {
			t.Fatal(err)
		}
		if err := d.Pause(); err != nil {
			t.Fatal(err)
		}
		err := o.Send(t.Context(), batch(outputtest.Numbered("lost", 5)))
		d.Kill()
		if acknowledged := err == nil; acknowledged != (transport == TCP) {
			t.Errorf("%s: a receiver that hangs: %v", transport, err)
		}
		if n := len(d.stored(t, listener)); n != 5 {
			t.Errorf("%s: %d messages stored", transport, n)
		}
	}
}

// The network between is cut ten times, in mid-stream.
func TestInvariant1_RealReceiverCutOff(t *testing.T) {
	for _, v := range lossy {
		t.Run(string(v.transport), func(t *testing.T) {
			if v.transport == RELP || v.transport == RELPTLS {
				t.Parallel() // a busy machine makes no difference to RELP
			}
			d := newDaemon(t, receivertest.NewRsyslog)
			w, err := receivertest.NewWire(d.Addr(v.listener))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = w.Close() })
			conf := lossConfig(d, v.transport, w.Addr())
			h := newHammer(open(t, conf), 400)
			lost := lossRun(t, d, v.listener, h, func(i int) {
				silence := time.Duration(0)
				if (v.transport == RELP || v.transport == RELPTLS) && i%2 == 0 {
					silence = 300 * time.Millisecond
				}
				w.Cut(silence)
			})
			if lost > 0 {
				t.Errorf("%d records lost", lost)
			}
			if h.again == 0 {
				t.Error("nothing was outstanding at any cut: the test shows nothing")
			}
		})
	}
}
