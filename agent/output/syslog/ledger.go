package syslog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// errNoQueue is what a queue function returns where the system can't tell what
// the peer has.
var errNoQueue = errors.New("the system does not say what the peer has acknowledged")

// ledgerConfig is what a ledger needs to know of its connection.
type ledgerConfig struct {
	delay time.Duration
	// patience is how long the peer may acknowledge nothing while there is
	// something to acknowledge, before the connection is given up.
	patience time.Duration
	// sent is how many bytes the kernel took so far.
	sent func() int64
	// queued is how many of those the peer has not acknowledged, or errNoQueue.
	// Any other error means that the connection is broken. It is called from
	// one goroutine.
	queued func() (int, error)
	// works is called when a batch is confirmed.
	works func()
}

// ledger keeps the batches that were written to one connection until they are
// confirmed or the connection breaks. It holds offsets and no record.
type ledger struct {
	ledgerConfig
	wake chan struct{} // capacity 1: a batch was added
	dead chan struct{} // closed by the first fail

	mu       sync.Mutex
	pending  []*confirmation // by end, ascending
	held     int             // how many of them, from the first, the peer's kernel has
	err      error           // why it is broken
	failed   bool            // something was pending when it broke, or added since
	acked    int64           // bytes that the peer's kernel has
	progress time.Time       // when acked last grew, or there began to be something to acknowledge
}

func newLedger(conf ledgerConfig) *ledger {
	return &ledger{ledgerConfig: conf, wake: make(chan struct{}, 1), dead: make(chan struct{})}
}

// confirmation is one batch that was written.
type confirmation struct {
	end     int64     // offset behind its last byte
	written time.Time // when
	held    time.Time // when the peer's kernel was seen to have it; zero until then
	verdict error     // what Wait returns once it is confirmed: nil, or which records were left out

	done chan struct{}
	err  error // set before done is closed
}

// Wait implements record.Confirmation.
func (c *confirmation) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	select {
	case <-c.done: // both: what is known counts
		return c.err
	default:
		return &fault.Error{Op: "waiting for the receiver to confirm", Err: context.Cause(ctx)}
	}
}

// add notes that all that was sent up to now ends with a batch, whose Wait is to
// return verdict once it is confirmed.
func (l *ledger) add(verdict error) *confirmation {
	c := &confirmation{end: l.sent(), written: time.Now(), verdict: verdict, done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		l.failed = true
		c.err = l.err
		close(c.done)
		return c
	}
	if l.held == len(l.pending) {
		l.progress = c.written
	}
	l.pending = append(l.pending, c)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return c
}

// fail breaks the ledger: all that is not confirmed fails with err, and so does
// what is added later. Only the first call counts.
func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err, l.failed = err, len(l.pending) > 0
	for _, c := range l.pending {
		c.err = err
		close(c.done)
	}
	l.pending, l.held = nil, 0
	close(l.dead)
}

// broken returns why the ledger is broken, nil if it isn't.
func (l *ledger) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// lost reports whether something was not confirmed when the ledger broke.
func (l *ledger) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// idle reports whether nothing waits to be confirmed.
func (l *ledger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending) == 0
}

// run confirms batches until the ledger is broken (nil) or finds that the
// connection is (the reason). It is one goroutine with one timer, and sleeps
// when there is nothing to confirm.
func (l *ledger) run() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next, err := l.step(time.Now())
		if err != nil {
			return err
		}
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case <-l.dead:
			return nil
		case <-l.wake:
		case <-due:
		}
	}
}

// step confirms what can be confirmed at now and returns when to look again;
// the zero time when there is nothing to wait for.
func (l *ledger) step(now time.Time) (next time.Time, err error) {
	l.mu.Lock()
	waiting := len(l.pending) > 0
	l.mu.Unlock()
	if !waiting {
		return time.Time{}, nil
	}
	// In this order: what is sent between the two calls counts as queued and
	// not as sent, so that too little is confirmed and never too much.
	sent := l.sent()
	queued, qerr := l.queued()
	if qerr != nil && !errors.Is(qerr, errNoQueue) {
		return time.Time{}, qerr
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if qerr == nil {
		if acked := sent - int64(queued); acked > l.acked {
			l.acked, l.progress = acked, now
		}
	}
	for ; l.held < len(l.pending); l.held++ {
		c := l.pending[l.held]
		if qerr != nil {
			c.held = c.written.Add(2 * l.delay)
		} else if c.end <= l.acked {
			c.held = now
		} else {
			break
		}
	}
	for l.held > 0 && !l.pending[0].held.Add(l.delay).After(now) {
		c := l.pending[0]
		l.pending[0] = nil
		l.pending, l.held = l.pending[1:], l.held-1
		l.works()
		// A crash here: the batch is confirmed but not committed, and is sent
		// again: a repeat within confirm_delay plus one commit.
		c.err = c.verdict
		close(c.done)
	}
	if l.held < len(l.pending) {
		if now.Sub(l.progress) >= l.patience {
			return time.Time{}, fmt.Errorf("the receiver's machine acknowledged nothing for %v", l.patience)
		}
		// A batch's delay begins when it is seen to be there, so look often,
		// also while the first waits for its own.
		next = now.Add(l.pause())
	}
	if l.held > 0 {
		if due := l.pending[0].held.Add(l.delay); next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next, nil
}

// pause is how long to wait before the queue is looked at again.
func (l *ledger) pause() time.Duration {
	return min(max(l.delay/10, 2*time.Millisecond), 100*time.Millisecond)
}
