package agent

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// stuckAfter is how long a run that is to end waits for a source or an output
// that makes no progress.
const stuckAfter = 2 * time.Minute

// lookAgain is the least time between two looks at whether all is done.
const lookAgain = 10 * time.Millisecond

// ends reports whether the run ends by itself, when its work is done.
func (a *Agent) ends() bool { return a.cfg.Once || a.cfg.Only != 0 }

// progressed nudges whoever waits for the work to be done.
func (a *Agent) progressed() {
	select {
	case a.nudge <- struct{}{}:
	default:
	}
}

// untilDone waits until every stream has been listed to its end and everything
// found is settled. It returns what could not be finished.
func (a *Agent) untilDone(ctx context.Context) (unfinished []string) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		last := !slices.ContainsFunc(a.sources, (*source).fetches)
		for _, d := range a.outputs {
			d.rest()
			d.waitForMore(!last)
		}
		if done, stuck := a.finished(); done {
			return stuck
		}
		select {
		case <-a.nudge:
			// Looking goes over all streams, and nudges come with each commit.
			sleep(ctx, lookAgain)
		case <-tick.C:
		case <-ctx.Done():
			return []string{"interrupted"}
		}
	}
}

// allKnown reports whether all that there is to do is known.
func (b *sinceBegun) allKnown() bool { return b.discovered && b.parkedTried }

// fetches reports whether the source may still bring what it has not brought,
// to an output that takes it, without that output sending what it has first.
func (s *source) fetches() bool {
	s.mu.Lock()
	failed, known := s.since.failed != nil, s.since.allKnown()
	s.mu.Unlock()
	if failed {
		return false
	}
	if !known || !s.queue.idle() {
		return true
	}
	return slices.ContainsFunc(s.all(), (*stream).comes)
}

// comes reports whether the stream is still to be listed for an output that is
// not held, and does not wait for what was found to be settled.
func (st *stream) comes() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, x := range st.listers {
		if !x.full && slices.ContainsFunc(x.lanes, func(l *lane) bool { return !l.listedOnce }) {
			return true
		}
	}
	return false
}

// finished reports whether nothing is left to be done but by sources and
// outputs that are stuck, and names those.
func (a *Agent) finished() (done bool, stuck []string) {
	late := func(last *atomic.Int64) bool {
		return time.Since(a.mono)-time.Duration(last.Load()) > stuckAfter
	}
	owing := make(map[*delivery]bool)
	if a.resyncs.ending() {
		return false, nil
	}
	if a.cfg.Only != 0 {
		if x := a.resyncs.find(a.cfg.Only); x == nil || x.isEnded() {
			return true, nil
		}
	}
	for _, s := range a.sources {
		s.mu.Lock()
		failed, walked := s.since.failed, s.since.allKnown()
		for what, err := range s.since.incomplete {
			stuck = append(stuck, fmt.Sprintf("source %s: %s: %v", s.cfg.Name, what, err))
		}
		s.mu.Unlock()
		if failed != nil {
			stuck = append(stuck, fmt.Sprintf("source %s: %v", s.cfg.Name, failed))
			continue
		}
		listed, open := walked, false
		for _, st := range s.all() {
			for _, l := range st.lanes {
				if late(&l.out.acked) && (l.out.isHeld() || !l.out.idle()) {
					if !st.settledFor(l) {
						owing[l.out] = true
					}
					continue
				}
				st.mu.Lock()
				listed = listed && (l.listedOnce || a.cfg.Only != 0)
				open = open || len(l.open) > 0 || len(l.retrying) > 0 || len(l.resyncing) > 0
				st.mu.Unlock()
			}
			if (!listed || open) && !late(&s.progress) {
				return false, nil
			}
		}
		again, owed := s.resyncer.left()
		for _, d := range owed {
			if !late(&d.acked) {
				return false, nil
			}
			owing[d] = true
		}
		open = open || again
		if listed && !open {
			continue
		}
		if !late(&s.progress) {
			return false, nil
		}
		stuck = append(stuck, fmt.Sprintf("source %s: no progress for %v", s.cfg.Name, stuckAfter))
	}
	for d := range owing {
		d.mu.Lock()
		err := d.lastErr
		d.mu.Unlock()
		stuck = append(stuck, fmt.Sprintf("output %s: no progress for %v: %v", d.cfg.Name, stuckAfter, err))
	}
	return true, stuck
}

// settledFor reports whether a lane has been listed to the end and owes nothing.
func (st *stream) settledFor(l *lane) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return l.listedOnce && len(l.open) == 0 && len(l.retrying) == 0
}

// idle reports whether the output has nothing to send, or waits for more first.
func (d *delivery) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sending == 0 && !d.doubt.on()
}

// rest notes that an output that works has nothing to do, if that is so: it is
// not to be taken for stuck when it begins.
func (d *delivery) rest() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sending == 0 && !d.held && !d.doubt.on() && d.failing.IsZero() {
		d.acked.Store(int64(time.Since(d.agent.mono)))
	}
}
