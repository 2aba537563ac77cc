package syslog

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// connection is what a ledger sees of one, in the hands of a test.
type connection struct {
	mu     sync.Mutex
	sent   int64
	queued int
	err    error
	worked int
}

// set makes sent bytes sent and queued of them not taken.
func (c *connection) set(sent int64, queued int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent, c.queued, c.err = sent, queued, err
}

func (c *connection) ledger(delay, patience time.Duration) *ledger {
	return newLedger(ledgerConfig{
		delay: delay, patience: patience,
		sent: func() int64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.sent
		},
		queued: func() (int, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.queued, c.err
		},
		works: func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.worked++
		},
	})
}

// start runs the ledger until the test ends, and breaks it as a link does.
func start(t *testing.T, l *ledger) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.run(); err != nil {
			l.fail(err)
		}
	}()
	t.Cleanup(func() {
		l.fail(errClosed)
		<-done
	})
}

// verdict returns what is known of c by now.
func verdict(c *confirmation) (err error, known bool) {
	synctest.Wait()
	select {
	case <-c.done:
		return c.err, true
	default:
		return nil, false
	}
}

func TestInvariant1_ConfirmedAfterDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &connection{}
		l := c.ledger(2*time.Second, time.Minute)
		start(t, l)
		c.set(100, 40, nil)
		a := l.add(nil)
		time.Sleep(10 * time.Second) // of the bubble's clock, as all below
		if _, known := verdict(a); known {
			t.Fatal("confirmed while the peer's kernel had 60 of 100 bytes")
		}
		c.set(150, 50, nil)
		b := l.add(nil)
		seen := time.Now()
		if err := a.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(seen); d < 2*time.Second || d > 2200*time.Millisecond {
			t.Fatalf("confirmed %v after the peer's kernel had it, want 2s", d)
		}
		if _, known := verdict(b); known {
			t.Fatal("the second was confirmed with the first")
		}
		c.set(150, 0, nil)
		if err := b.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.mu.Lock()
		if c.worked != 2 {
			t.Errorf("works was called %d times", c.worked)
		}
		c.mu.Unlock()
		// Asleep: nothing to confirm, no timer. In the bubble an hour passes in
		// no time only if nobody keeps waking up.
		time.Sleep(time.Hour)
	})
}

// A connection that breaks within the delay confirms nothing, and one that broke
// confirms nothing any more.
func TestInvariant1_BrokenConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &connection{sent: 10}
		l := c.ledger(2*time.Second, time.Minute)
		start(t, l)
		a := l.add(nil)
		time.Sleep(1999 * time.Millisecond)
		why := errors.New("reset")
		l.fail(why)
		l.fail(errors.New("a later one"))
		if err, known := verdict(a); !known || !errors.Is(err, why) {
			t.Fatalf("%v, %v", err, known)
		}
		if err := l.add(nil).Wait(t.Context()); !errors.Is(err, why) {
			t.Fatalf("added to a broken ledger: %v", err)
		}
	})
}

// The queue's own error breaks the connection at once: it knows of an end that
// the reader has yet to be told of.
func TestInvariant1_QueueError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &connection{sent: 10}
		l := c.ledger(time.Second, time.Minute)
		start(t, l)
		a := l.add(nil)
		time.Sleep(500 * time.Millisecond)
		c.set(10, 0, errPeerClosed)
		if err := a.Wait(t.Context()); !errors.Is(err, errPeerClosed) {
			t.Fatal(err)
		}
	})
}

func TestConfirmedWithoutQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &connection{sent: 10, err: errNoQueue}
		l := c.ledger(time.Second, time.Minute)
		start(t, l)
		begun := time.Now()
		if err := l.add(nil).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d != 3*time.Second {
			t.Fatalf("confirmed after %v, want three delays", d)
		}
	})
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &connection{sent: 10}
		l := c.ledger(40*time.Second, 30*time.Second)
		start(t, l)
		a := l.add(nil)
		// The peer had everything for 35 s: that is no silence.
		time.Sleep(35 * time.Second)
		c.set(20, 10, nil)
		b := l.add(nil)
		if err := a.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := b.Wait(t.Context()); err == nil {
			t.Fatal("confirmed though it was never acknowledged")
		}
		if d := time.Since(begun); d < 24*time.Second || d > 26*time.Second {
			t.Fatalf("given up after %v, want 25s more", d)
		}
	})
}

func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &connection{sent: 10, queued: 10}
		l := c.ledger(time.Second, time.Hour)
		start(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := l.add(nil).Wait(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || fault.KindOf(err) != fault.Temporary {
			t.Fatal(err)
		}
	})
}

// Whatever the peer takes and when: nothing is confirmed before the peer's
// kernel had it for the delay, all of it is in the end, and in order.
func TestInvariant1_LedgerProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const delay = time.Second
		now := time.Unix(0, 0)
		c := &connection{}
		l := c.ledger(delay, time.Hour)
		type sent struct {
			*confirmation
			had time.Time // since when the peer has it
		}
		var all []sent
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0:
				n := rapid.IntRange(1, 100).Draw(rt, "bytes")
				c.sent, c.queued = c.sent+int64(n), c.queued+n
				all = append(all, sent{confirmation: l.add(nil)})
			case 1:
				c.queued -= min(c.queued, rapid.IntRange(0, 150).Draw(rt, "acked"))
			default:
				now = now.Add(time.Duration(rapid.IntRange(0, 700).Draw(rt, "ms")) * time.Millisecond)
			}
			for i := range all {
				if all[i].had.IsZero() && all[i].end <= c.sent-int64(c.queued) {
					all[i].had = now
				}
			}
			if _, err := l.step(now); err != nil {
				rt.Fatal(err)
			}
			open := false
			for i, s := range all {
				select {
				case <-s.done:
					if open || s.had.IsZero() || now.Sub(s.had) < delay {
						rt.Fatalf("batch %d confirmed too early", i)
					}
				default:
					open = true
				}
			}
		}
		c.queued = 0
		for range 2 {
			if _, err := l.step(now); err != nil {
				rt.Fatal(err)
			}
			now = now.Add(delay)
		}
		if next, _ := l.step(now); !next.IsZero() || len(l.pending) != 0 || c.worked != len(all) {
			rt.Fatalf("next %v, %d pending, %d of %d confirmed", next, len(l.pending), c.worked, len(all))
		}
	})
}
