package agent

import (
	"sync"
	"time"
)

// clock is S3's clock: its last answer, and the monotonic time since. The
// local wall clock is used only until S3 has first answered.
type clock struct {
	wall func() time.Time
	mu   sync.Mutex
	at   time.Time
	mono time.Time
	// odd is a time that did not fit, at oddMono: it counts when another
	// answer agrees with it.
	odd, oddMono time.Time
}

// maxJump is how far an answer's time may be from what the one before foretold.
const maxJump = time.Hour

// set takes S3's time, and returns by how much the local clock is ahead of it.
func (c *clock) set(at time.Time) (ahead time.Duration) {
	if at.IsZero() {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.at.IsZero() && at.Sub(c.at.Add(now.Sub(c.mono))).Abs() > maxJump {
		agrees := !c.odd.IsZero() && at.Sub(c.odd.Add(now.Sub(c.oddMono))).Abs() <= maxJump
		c.odd, c.oddMono = at, now
		if !agrees {
			return c.wall().Sub(c.at.Add(now.Sub(c.mono)))
		}
	}
	c.at, c.mono = at, now
	return c.wall().Sub(at)
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return c.wall().UTC().Truncate(time.Second)
	}
	return c.at.Add(time.Since(c.mono)).UTC().Truncate(time.Second)
}
