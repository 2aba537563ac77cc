package agent

import (
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// What a pass is for, for a reach of the tests.
const (
	TailPass   = tailPass
	HourlyPass = hourlyPass
	DailyPass  = dailyPass
)

// PassKind is passKind.
type PassKind = passKind

// SetReach makes listings begin elsewhere: for tests that show that beginning
// elsewhere loses objects.
func (c *Config) SetReach(f func(kind PassKind, listed time.Time, head progress.Head, s *SourceConfig, now time.Time) time.Time) {
	c.reach = f
}
