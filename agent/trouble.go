package agent

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// troubles says trouble once when it begins and once when it ends, however
// often it is met in between.
type troubles struct {
	log zerolog.Logger

	mu   sync.Mutex
	open map[string]*trouble
}

type trouble struct {
	since time.Time
	last  time.Time
	times int
	err   string
}

func newTroubles(log zerolog.Logger) *troubles {
	return &troubles{log: log, open: make(map[string]*trouble)}
}

// met notes a failure of what (what is tried, e.g. "listing the bucket").
func (t *troubles) met(what string, err error, hint string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := t.open[what]; o != nil {
		o.times++
		o.last = time.Now()
		o.err = err.Error()
		return
	}
	now := time.Now()
	t.open[what] = &trouble{since: now, last: now, times: 1, err: err.Error()}
	e := t.log.Warn().Str("trouble", what).Str("kind", fault.KindOf(err).String()).Err(err)
	if hint == "" {
		hint = fault.HintOf(err)
	}
	if hint != "" {
		e = e.Str("remedy", hint)
	}
	e.Msg("trouble begins; trying on")
}

// over notes that what works again.
func (t *troubles) over(what string) { t.overAfter(what, 0) }

// overAfter notes that what works, where some of it may still fail: the trouble
// is over when it has not been met for that long.
func (t *troubles) overAfter(what string, quiet time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.open[what]
	if o == nil || time.Since(o.last) < quiet {
		return
	}
	delete(t.open, what)
	t.log.Info().Str("trouble", what).Dur("lasted_ms", time.Since(o.since)).Int("failures", o.times).
		Msg("trouble is over")
}
