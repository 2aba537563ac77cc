package page

import (
	"context"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/control"
)

const (
	// slot is how long one bar of the last day is.
	slot = 30 * time.Minute
	// slots make up the last day.
	slots = int(24 * time.Hour / slot)
	// sampling is how often the counts are looked at.
	sampling = 30 * time.Second
)

// History remembers how many records each output took in each half hour of the
// last day. It is in memory only, so it begins with the process; an agent that
// takes another configuration goes on with it. It may be used from any
// goroutine.
type History struct {
	mu    sync.Mutex
	since time.Time // of the first sample
	last  map[string]int64
	ring  [slots]slotCount
}

// slotCount is what happened in one slot.
type slotCount struct {
	at      int64 // since 1970, in slots
	records map[string]int64
}

// Run looks at the counts until ctx ends. Each Run stands for one agent, whose
// counts begin at nothing.
func (h *History) Run(ctx context.Context, snapshot func() (*control.Snapshot, error)) {
	h.begin()
	t := time.NewTicker(sampling)
	defer t.Stop()
	for {
		if s, err := snapshot(); err == nil {
			h.sample(time.Now(), s)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			if s, err := snapshot(); err == nil {
				h.sample(time.Now(), s) // what the next agent won't count
			}
			return
		}
	}
}

func (h *History) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = make(map[string]int64)
}

// sample adds what has come since the last one.
func (h *History) sample(now time.Time, s *control.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		h.since = now
	}
	if h.last == nil {
		h.last = make(map[string]int64)
	}
	at := now.Unix() / int64(slot/time.Second)
	c := &h.ring[at%int64(slots)]
	if c.at != at || c.records == nil {
		*c = slotCount{at, make(map[string]int64)}
	}
	for i := range s.Outputs {
		o := &s.Outputs[i]
		// A snapshot may come after a newer one: it adds nothing.
		if n := o.Records - h.last[o.Name]; n > 0 {
			c.records[o.Name] += n
			h.last[o.Name] = o.Records
		}
	}
}

// day returns an output's records of the last day's slots, the one that goes on
// last, when that one began, and since when they are known.
func (h *History) day(now time.Time, output string) (counts [slots]int64, began, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := now.Unix() / int64(slot/time.Second)
	for i := range counts {
		want := at - int64(slots-1-i)
		if c := &h.ring[want%int64(slots)]; c.at == want {
			counts[i] = c.records[output]
		}
	}
	return counts, time.Unix(at*int64(slot/time.Second), 0).UTC(), h.since
}
