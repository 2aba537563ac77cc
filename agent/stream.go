package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// stream is one stream of a source with its lanes.
type stream struct {
	id     progress.Stream
	source *source
	prefix string // whole keys of the stream begin with it

	// taking is held while a page is worked into the lanes, so that a listing
	// and a re-sync don't find the same object at once. It comes before mu.
	taking sync.Mutex

	mu      sync.Mutex // guards lanes, listers and all targets of the stream
	lanes   []*lane
	listers []*lister

	jobs [classes][]*job // waiting, oldest first; guarded by the source's queue

	lists *hourCount // LISTs made
}

// newStream makes a stream with a lane for each of the source's outputs. heads
// are what the checkpoint remembers, by output.
func newStream(s *source, id progress.Stream) *stream {
	st := &stream{id: id, source: s, prefix: cloudtrail.StreamPrefix(s.cfg.Prefix, id), lists: newHourCount()}
	for _, out := range s.outputs {
		st.lanes = append(st.lanes, newLane(st, out))
	}
	return st
}

func newLane(st *stream, out *delivery) *lane {
	l := &lane{
		id:       progress.Lane{Source: st.source.id, Stream: st.id, Output: out.cfg.Name},
		of:       st,
		begin:    st.source.known.Outputs[out.cfg.Name],
		out:      out,
		head:     st.source.heads[out.cfg.Name][st.id],
		open:     make(map[string]*target),
		retrying: make(map[string]*target), resyncing: make(map[string]*target),
	}
	if l.head.Watermark == "" {
		l.head.Watermark = st.floor(l.begin.Start)
	}
	if l.head.Hourly.IsZero() {
		// Nothing can be late for a lane that begins now. A lane of a stream
		// found later begins its sweeps where the output met the source, so
		// that nothing in between is missed.
		l.head.Hourly, l.head.Daily = l.begin.FirstSeen, l.begin.FirstSeen
	}
	l.listed = l.head.Watermark
	l.recall()
	return l
}

// floor returns the least position that an object of the stream with that
// stamp can have.
func (st *stream) floor(t time.Time) string { return cloudtrail.Floor(st.id, t) }

// advance moves the lane's head; the stream's mutex is held.
func (st *stream) advance(l *lane) bool {
	c := &st.source.cfg
	return l.advance(st.floor, cloudtrail.Instant, c.LateHorizon, c.LookBack)
}

// found returns a listed log file as an object.
func (st *stream) found(f listed) *found {
	s := st.source
	info := s.cfg.AccountInfo[st.id.Account]
	return &found{
		stream:   st,
		entry:    f.entry,
		position: f.position,
		object: &record.Object{
			Source: s.cfg.Name, Labels: s.labels(st.id.Account),
			Bucket: s.cfg.Bucket, Key: f.entry.Key,
			Organization: st.id.Organization, Account: st.id.Account, AccountName: info.Name,
			Region: st.id.Region, LogType: st.id.LogType, Stamp: f.stamp,
		},
	}
}

// tooOld reports whether the lane began after the object: its stamp is before
// the start, and it did not appear, late, after the two first met.
func (l *lane) tooOld(stamp time.Time, e *listing.Entry, horizon time.Duration) bool {
	if !stamp.Before(l.begin.Start) {
		return false
	}
	late := !e.LastModified.Before(l.begin.FirstSeen) && e.LastModified.Sub(stamp) <= horizon
	return !late
}

// leave takes a lane out of the listing, because its output is held: it stands
// still, and what was found of it and not sent is forgotten.
func (st *stream) leave(out *delivery) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, l := range st.lanes {
		if l.out != out {
			continue
		}
		for i := 0; i < len(st.listers); {
			if st.listers[i].remove(l) {
				st.listers[i].stop()
				st.listers = append(st.listers[:i], st.listers[i+1:]...)
				continue
			}
			i++
		}
		l.forget()
	}
}

// enter puts the lane of an output into the listing, from its own watermark.
func (st *stream) enter(out *delivery) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, l := range st.lanes {
		listed := slices.ContainsFunc(st.listers, func(x *lister) bool { return slices.Contains(x.lanes, l) })
		if l.out == out && !listed {
			st.list([]*lane{l})
		}
	}
}

// list begins to list for lanes; the stream's mutex is held.
func (st *stream) list(lanes []*lane) {
	if len(lanes) == 0 || st.source.agent.cfg.Only != 0 {
		return
	}
	l := newLister(st, lanes)
	st.listers = append(st.listers, l)
	st.source.schedule.wake(l)
}

// room wakes listers that waited for lanes to be worked off; the stream's
// mutex is held.
func (st *stream) room() {
	for _, l := range st.listers {
		if l.full && l.hasRoom() {
			l.full = false
			st.source.schedule.wake(l)
		}
	}
}
