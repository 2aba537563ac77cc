package agent

import (
	"slices"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// listed is an entry of a page that is a log file of the stream.
type listed struct {
	entry    listing.Entry
	position string
	stamp    time.Time
}

// read tells the log files of a page from what else there is, and returns the
// position up to which the page lists. What is no log file says nothing of
// where the stream stands: a name like "old/…" sorts behind all days to come.
func (l *lister) read(page listing.Page, after string) (files []listed, end string) {
	st := l.stream
	files = make([]listed, 0, len(page.Entries))
	end = after
	foreign := 0
	for _, e := range page.Entries {
		position, ok := strings.CutPrefix(e.Key, st.prefix)
		if !ok || position <= end {
			continue // a server that repeats itself
		}
		end = position
		if stamp, class := cloudtrail.ParsePosition(st.id, position); class == cloudtrail.Log {
			files = append(files, listed{e, position, stamp})
		} else {
			foreign++
		}
	}
	st.source.count.foreign.Add(int64(foreign))
	return files, end
}

// take works a page into the lanes.
func (l *lister) take(page listing.Page, p *pass, lanes []*lane) error {
	st, s := l.stream, l.stream.source
	st.taking.Lock()
	defer st.taking.Unlock()
	files, end := l.read(page, p.after)
	all, err := l.lookUp(files, lanes)
	if err != nil {
		return err
	}
	jobs := make([]*job, len(files))
	now := s.now()
	at := plausible(page.At, now)
	st.mu.Lock()
	for i, x := range lanes {
		if slices.Contains(l.lanes, x) { // else its output was held meanwhile
			l.takeInto(x, p, files, all[i], jobs, at, now)
		}
	}
	st.mu.Unlock()
	for _, j := range jobs {
		if j != nil {
			p.found++
			s.queue.put(j)
		}
	}
	p.first = false
	p.pages++
	p.after = end
	return nil
}

// plausible returns when S3 answered, which is not by a Date that nothing else
// agrees with.
func plausible(at, now time.Time) time.Time {
	if at.Sub(now).Abs() > maxJump {
		return now
	}
	return at
}

// standings is how the files of a page stand in a lane, each in its place.
type standings struct {
	known  []*target        // what is on its way, nil for what is not
	states []progress.State // by the checkpoint
}

// lookUp finds out how the files of a page stand in each of the lanes.
func (l *lister) lookUp(files []listed, lanes []*lane) ([]standings, error) {
	positions := make([]string, len(files))
	for n := range files {
		positions[n] = files[n].position
	}
	all := make([]standings, len(lanes))
	// What is open is looked up before the checkpoint is: an object leaves
	// open only after its settlement is durable, so one of the two knows it.
	l.stream.mu.Lock()
	for i, x := range lanes {
		known := make([]*target, len(files))
		for n, position := range positions {
			known[n] = x.busy(position)
		}
		all[i].known = known
	}
	l.stream.mu.Unlock()
	for i, x := range lanes {
		var err error
		if all[i].states, err = l.stream.source.agent.cfg.Checkpoint.Lookup(x.id, positions, nil); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// takeInto works the files of a page into one lane, and makes jobs of those that
// it wants: jobs has room for one each, which lanes share. at is when S3
// answered. The stream's mutex is held.
func (l *lister) takeInto(x *lane, p *pass, files []listed, all standings, jobs []*job, at, now time.Time) {
	st, horizon := l.stream, l.stream.source.cfg.LateHorizon
	if p.first && (p.kind == hourlyPass || p.kind == dailyPass) {
		p.sweeps[x] = &sweep{daily: p.kind == dailyPass, at: at}
		x.sweeps = append(x.sweeps, p.sweeps[x])
	}
	sw := p.sweeps[x]
	prev := min(x.listed, p.after)
	for n, f := range files {
		before := prev
		prev = f.position
		if t := all.known[n]; t != nil && (t.resync == nil || !t.abandoned) {
			x.adopt(t, before, all.states[n], horizon)
			if x.open[f.position] == t {
				sw.wait(t)
			}
			continue
		}
		state := all.states[n]
		if state.Standing == progress.Settled || state.Standing == progress.Parked || x.tooOld(f.stamp, &f.entry, horizon) {
			continue
		}
		if jobs[n] == nil {
			jobs[n] = &job{found: st.found(f), class: classOf(f, x, now)}
		}
		t := &target{found: jobs[n].found, lane: x, class: jobs[n].class, acked: state.Acked, etag: state.ETag, total: -1}
		jobs[n].targets = append(jobs[n].targets, t)
		x.add(t, before)
		sw.wait(t)
	}
	// Everything up to the page's last log file has been listed and is known:
	// from here on the watermark may pass what is settled of it. A crash right
	// here loses nothing: the one on disk is still the old one.
	if p.kind != freshPass && len(files) > 0 {
		x.listed = max(x.listed, files[len(files)-1].position)
	}
	st.advance(x)
}

// classOf returns how urgent an object is that was found for a lane.
func classOf(f listed, x *lane, now time.Time) class {
	switch {
	case now.Sub(f.stamp) <= hourly:
		return live
	case f.position > x.listed:
		return backlog
	}
	return late
}
