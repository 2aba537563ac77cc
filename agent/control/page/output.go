package page

import (
	"fmt"
	"time"

	"github.com/trailpoll/trailpoll/agent"
)

// outputView is an output with its last day.
type outputView struct {
	agent.OutputStatus
	Level, Failing string
	Bars           []bar
	Day            string // the chart in words
}

// bar is one half hour, in a drawing of 480 × 60.
type bar struct {
	X, Y, Height int
	Known        bool
	Title        string
}

const (
	barWidth    = 10
	chartHeight = 60
)

func (v *view) output(o *agent.OutputStatus, h *History, now time.Time) {
	x := outputView{OutputStatus: *o, Level: ok}
	since := ""
	if o.Since != nil {
		x.Failing = stamp(*o.Since)
		since = " since " + x.Failing
	}
	switch o.State {
	case agent.StateOK:
	case agent.StateRetrying:
		x.Level = warn
		v.add(warn, "Output %s fails and is tried again%s: %s", o.Name, since, o.Error)
	default:
		x.Level = bad
		v.add(bad, "Output %s is %s%s: %s", o.Name, o.State, since, o.Error)
	}
	counts, began, known := h.day(now, o.Name)
	total, peak, at := int64(0), int64(0), 0
	for i, n := range counts {
		total += n
		if n > peak {
			peak, at = n, i
		}
	}
	starts := func(i int) time.Time { return began.Add(-time.Duration(slots-1-i) * slot) }
	for i, n := range counts {
		b := bar{X: i * barWidth, Known: !known.IsZero() && starts(i).Add(slot).After(known)}
		if n > 0 {
			b.Height = max(1, int(float64(n)/float64(peak)*chartHeight))
		}
		b.Y = chartHeight - b.Height
		b.Title = starts(i).Format("15:04") + ": " + number(n) + " records"
		x.Bars = append(x.Bars, b)
	}
	x.Day = number(total) + " records in the last 24 hours"
	if known.After(starts(0)) {
		x.Day = number(total) + " records since " + known.UTC().Format("15:04 UTC")
	}
	if peak > 0 {
		x.Day += fmt.Sprintf("; most in the half hour from %s: %s, %.1f a second", starts(at).Format("15:04 UTC"), number(peak), float64(peak)/slot.Seconds())
	}
	v.Outputs = append(v.Outputs, x)
}
