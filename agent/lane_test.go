package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// One object that can't be settled for long does not make a lane remember all
// that are settled behind it.
func TestInvariant8_OneOpenObjectKeepsNoOthers(t *testing.T) {
	l := &lane{open: make(map[string]*target), head: progress.Head{}}
	floor := func(time.Time) string { return "" }
	stamp := func(string) (time.Time, bool) { return time.Time{}, false }
	prev := ""
	for i := range 100_000 {
		tt := &target{found: &found{position: fmt.Sprintf("2026/01/01/%08d", i), object: new(record.Object)}, lane: l}
		l.add(tt, prev)
		prev = tt.position
		l.listed = prev
		if i > 0 {
			l.settle(tt)
			l.advance(floor, stamp, time.Hour, time.Hour)
			l.durable(tt)
		}
	}
	if n := len(l.order); n > 2000 {
		t.Errorf("%d objects are remembered, of which %d are open", n, len(l.open))
	}
}
