package agent

import (
	"context"
	"time"
)

const whatSending = "sending"

// tookSome notes that the output took something. That ends all doubt in it.
func (d *delivery) tookSome() {
	d.acked.Store(int64(time.Since(d.agent.mono)))
	d.mu.Lock()
	failing := !d.failing.IsZero() || d.doubt.on()
	d.failing = time.Time{}
	d.lastErr = nil
	d.doubt.takes++
	open := d.doubt.end()
	if open != nil {
		d.changed.Broadcast()
	}
	d.mu.Unlock()
	if failing {
		d.trouble.over(whatSending)
	}
	d.release(open)
}

// answers notes that the output answers, though with a refusal.
func (d *delivery) answers() {
	d.mu.Lock()
	if d.held {
		d.mu.Unlock()
		return
	}
	failing := !d.failing.IsZero()
	d.failing = time.Time{}
	if d.doubt.on() {
		d.mu.Unlock()
		return
	}
	d.lastErr = nil
	d.mu.Unlock()
	d.acked.Store(int64(time.Since(d.agent.mono)))
	if failing {
		d.trouble.over(whatSending)
	}
}

// failed notes a failed attempt, and holds the output if it has failed for
// long enough or can't but fail. held tells whether it is held; first, whether
// this call made it so: that caller goes on trying, and all others give up.
func (d *delivery) failed(err error, atOnce bool) (first, held bool) {
	d.trouble.met(whatSending, err, "")
	d.mu.Lock()
	d.lastErr = err
	if d.failing.IsZero() {
		d.failing = time.Now()
	}
	if d.held || !atOnce && time.Since(d.failing) < holdAfter {
		held = d.held
		d.mu.Unlock()
		return false, held
	}
	d.held = true
	close(d.onHold)
	d.drop()
	d.mu.Unlock()
	// From here on nothing new is queued. The lanes stand still: what is not
	// sent is in S3, and is listed again when the output is back.
	d.agent.leave(d)
	d.log.Warn().Msg("output is held; its lanes stand still until it is back")
	return true, true
}

// drop forgets what is queued; mu is held.
func (d *delivery) drop() {
	for i := range d.queue {
		p := &d.queue[i]
		d.stakes.add(p.target.stream.source, -p.memory, -p.memory)
		p.chunk.release()
	}
	d.queue, d.records, d.bytes = nil, 0, 0
	d.behind, d.heldUp = false, 0
	d.doubt.end() // its lanes were left, or are done with
}

// pause waits before the next attempt; it is cut short when the output is
// held, but for the probe. It reports whether to go on.
func (d *delivery) pause(ctx context.Context, wait time.Duration, probe bool) bool {
	if probe {
		return sleep(ctx, wait)
	}
	d.mu.Lock()
	onHold := d.onHold
	d.mu.Unlock()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-onHold:
		return false
	case <-ctx.Done():
		return false
	}
}

// resume ends the hold when all other senders are done with what they had: an
// object that is still on its way must not be found a second time.
func (d *delivery) resume(abort context.Context) {
	stop := context.AfterFunc(abort, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.quiet.Broadcast()
	})
	defer stop()
	d.mu.Lock()
	for d.sending > 1 && abort.Err() == nil {
		d.quiet.Wait()
	}
	d.mu.Unlock()
	d.agent.settler.barrier() // what others have just had acknowledged, too
	d.mu.Lock()
	d.held = false
	d.onHold = make(chan struct{})
	d.mu.Unlock()
	d.log.Info().Msg("output is back; its lanes go on")
	d.agent.enter(d)
}

// holdBlind holds an output whose connection breaks before what it took is
// confirmed: there is no batch to probe it with, so it is left alone for a
// while and tried with the next.
func (d *delivery) holdBlind(ctx, abort context.Context) {
	if !sleep(ctx, jitter(maxProbe/2)) {
		return
	}
	d.busy(1) // as a sender that resumes
	d.resume(abort)
	d.busy(-1)
}
