package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// When a receiver refuses every record of a batch, either the records are wrong
// or it is: another url, another format, a pipeline that fails. Whoever can
// write to a trail can write records that are refused, as many as he likes, and
// must not stop the output by that. And an output that is set up wrongly must
// not have a whole bucket parked, record by record, to be tried again by hand.
//
// Only other records can tell. So:
//
//   - A record is parked as refused when the same receiver took others of the
//     batch; else when it was refused, another record was then taken, and it was
//     refused once more. What was refused and not confirmed so is in doubt. Of an
//     answer that may mean something else (fault.Error.Unsure) only the latter
//     counts, and several times over.
//   - What is in doubt stays open: not settled, not parked, out of memory but
//     for where it is. The lanes go on, so that whatever is new is tried, too,
//     by one sender, one batch at a time, up to doubtPace apart.
//   - The first record that is taken ends the doubt: all that was in doubt is
//     read and sent again. It is parked now where it is refused again.
//   - Meanwhile a few of the records in doubt are tried again and again, so that
//     a receiver that was mended is noticed though nothing new comes.
//
// Where nothing is taken for hours, nothing is lost by waiting: all that there
// is is refused. The state that doubt takes is bounded. When more than so many
// objects are in doubt, or wait for the output, the output is held like any
// other that takes nothing: its lanes stand still and cost nothing, and from time
// to time they go on for as many objects again. Listing has what is new come
// first, and streams take turns, so these are not the same as before, unless one
// stream alone brings more than that within the hour.
//
// A crash in doubt forgets it, and it begins anew: none of it was taken, so that
// nothing is sent twice.

const (
	// doubtPace is the longest time between two batches in doubt.
	doubtPace = 2 * time.Second
	// sureAfter is how often a record must have come into doubt, others being
	// taken in between, to be parked for an answer that may mean something else.
	sureAfter = 3
	// sampleEach is how many records of a batch are kept to be tried again, and
	// sampleBytes how large they may be together, unless it is one alone.
	sampleEach  = 4
	sampleBytes = 256 << 10
	// lookAt is how many records of a batch are tried, when all of them are known
	// to have been refused one by one.
	lookAt = 8
	// readAgain is after how long everything in doubt is read and tried once
	// more, and after how long an output that is held for it tries what is new.
	readAgain = time.Hour
)

// doubt is what a receiver has refused without having taken anything since.
// Guarded by its delivery's mutex.
type doubt struct {
	// takes counts the batches of which the receiver took something, and so
	// tells what was refused before and after that.
	takes uint64

	since   time.Time // zero: there is no doubt
	open    map[*target]progress.Ranges
	records int
	batches int       // refused whole, one after the other
	next    time.Time // nothing is sent before
	// sample are copies of some of the records, each for itself.
	sample []specimen
	asked  int       // how often it was tried
	ask    time.Time // when it is tried next
	reread time.Time // when all that is open is read again
}

// specimen is one record in doubt.
type specimen struct {
	target *target
	record record.Record
}

func (x *doubt) on() bool { return !x.since.IsZero() }

// end returns what was in doubt, for release.
func (x *doubt) end() map[*target]progress.Ranges {
	open := x.open
	*x = doubt{takes: x.takes}
	return open
}

// inDoubt reports whether the receiver refuses everything that it is given.
func (d *delivery) inDoubt() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doubt.on()
}

// errRefusesAll is the trouble that doubt is; why is what the receiver said of
// one record.
func errRefusesAll(why error) error {
	return &fault.Error{
		Kind: fault.Held, Err: fmt.Errorf("the receiver refuses every record: %w", why),
		Hint: "compare the output's format and url with what the receiver expects; if it is the records, " +
			"they are parked as soon as the receiver takes another one",
	}
}

// judge decides about the records that were refused: those of which it isn't
// certain that it is they, and not the receiver, are in doubt from here on.
func (a *attempt) judge(pieces []piece) {
	first, early := -1, 0
	for i, v := range a.verdicts {
		if v.kind == acked {
			first = i
			break
		}
		if v.kind == refused && !v.certain {
			early++
		}
	}
	// What was refused before the first record was taken may have met a receiver
	// that was being mended. In a batch of one or two bad records that is not
	// worth a second look.
	trust := first >= 0 && early < refusedAll && !a.doubting
	var all []verdict
	for i, v := range a.verdicts {
		if v.kind != refused || v.certain || !v.unsure && (trust || first >= 0 && i > first && !a.quick) {
			all = append(all, v)
			continue
		}
		at := 0
		for _, p := range pieces {
			from, to := max(v.from, at), min(v.to, at+p.to-p.from)
			if from < to {
				x := v
				x.from, x.to = from, to
				all = append(all, a.judgePiece(x, p, p.from-at)...)
			}
			at += p.to - p.from
		}
	}
	a.verdicts = all
}

// judgePiece is judge for refused records of one target; shift leads from
// numbers of the batch to those of the object.
func (a *attempt) judgePiece(v verdict, p piece, shift int) (all []verdict) {
	t := p.target
	t.stream.mu.Lock()
	defer t.stream.mu.Unlock()
	for i := v.from; i < v.to; i++ {
		x, rec := v, i+shift
		x.from, x.to = i, i+1
		switch {
		case t.retried(rec) >= 0: // it was parked before
		case t.doubted.Has(rec) && t.doubtedAt < a.takes && !a.quick && (!v.unsure || t.doubts >= sureAfter):
			// Others were taken since it was refused before.
		default:
			x.kind = doubted
			if n := len(all); n > 0 && all[n-1].kind == doubted {
				all[n-1].to = x.to
				continue
			}
		}
		all = append(all, x)
	}
	before := t.doubtedAt
	for _, x := range all {
		if x.kind == doubted {
			if t.doubts == 0 || before < a.takes && t.doubtedAt == before {
				t.doubts++
			}
			t.doubted = t.doubted.Add(x.from+shift, x.to+shift)
			t.doubtedAt = a.takes
		}
	}
	return all
}

// known reports whether every record of the batch is in doubt already, so that
// it need not be found out which of them are refused.
func (a *attempt) known(pieces []piece) bool {
	for _, p := range pieces {
		t := p.target
		t.stream.mu.Lock()
		known := t.doubtedAt >= a.takes
		for i := p.from; known && i < p.to; i++ {
			known = t.doubted.Has(i)
		}
		t.stream.mu.Unlock()
		if !known {
			return false
		}
	}
	return true
}

// look tries a batch of which every record was refused one by one before: as a
// whole, and then a few of them.
func (a *attempt) look(ctx, abort context.Context) {
	n := len(a.load.batch.Records)
	if n == 1 {
		a.send(ctx, abort, 0, 1)
		return
	}
	err := a.until(ctx, abort, &a.load.batch)
	switch {
	case err == nil, fault.KindOf(err) != fault.TooLarge && fault.KindOf(err) != fault.Refused, len(fault.RefusalsOf(err)) > 0:
		a.answer(0, n, err)
		return
	}
	for i, step := 0, (n+lookAt-1)/lookAt; i < n; i += step {
		a.send(ctx, abort, i, i+1)
		a.say(i+1, min(i+step, n), refused, record.Refused, err)
	}
}

// suspect notes that the records of these pieces are in doubt. again reports
// that they are not, since the receiver has taken something after all: they are
// to be sent once more. full reports that the output has to be held.
func (d *delivery) suspect(a *attempt, open []piece, why error) (again, full bool) {
	for _, p := range open {
		p.target.suspect(true)
	}
	waiting := 0
	for _, s := range d.agent.sources {
		if d.cfg.takes(s.cfg.Name) {
			waiting += s.queue.asideOf(d)
		}
	}
	err := errRefusesAll(why)
	now := time.Now()
	d.mu.Lock()
	if d.held || d.closed {
		d.mu.Unlock()
		return false, false // its lanes were left
	}
	x := &d.doubt
	if x.takes > a.takes {
		d.mu.Unlock()
		for _, p := range open {
			p.target.suspect(false)
		}
		return true, false
	}
	begins := !x.on()
	if begins {
		x.since, x.open, x.reread = now, make(map[*target]progress.Ranges), now.Add(readAgain)
	}
	for _, p := range open {
		was := x.open[p.target].Len()
		x.open[p.target] = x.open[p.target].Add(p.from, p.to)
		x.records += x.open[p.target].Len() - was
	}
	if a.sample {
		x.asked++
	} else {
		x.batches++
		x.next = now.Add(expBackoff(x.batches, firstRetry, doubtPace))
		x.keep(a, open)
	}
	x.ask = now.Add(expBackoff(x.asked+1, firstProbe, maxProbe))
	d.lastErr = err
	full = len(x.open)+waiting > d.mostInDoubt()
	// Without a sample one of the objects is read again, to have one; and all of
	// them, when it is time for that.
	back := make(map[*target]progress.Ranges)
	switch {
	case full:
	case len(x.sample) == 0:
		t := open[0].target
		back[t] = x.open[t]
		x.records -= x.open[t].Len()
		delete(x.open, t)
	case a.sample && now.After(x.reread):
		back, x.open, x.records = x.open, back, 0
		x.reread = now.Add(readAgain)
	}
	d.changed.Broadcast()
	d.mu.Unlock()
	d.trouble.met(whatSending, err, "")
	if begins {
		d.agent.room(d) // nobody waits for it from here on
	}
	d.release(back)
	return false, full
}

// mostInDoubt is how many objects may be in doubt: half of those that may wait
// in the queue of each source.
func (d *delivery) mostInDoubt() int {
	n := int64(mostJobs)
	for _, s := range d.agent.sources {
		if d.cfg.takes(s.cfg.Name) {
			n = min(n, s.queue.most)
		}
	}
	return int(n / 2)
}

// keep takes copies of a few records of a batch that was refused: the first
// ones in doubt stay, with the latest beside them.
func (x *doubt) keep(a *attempt, open []piece) {
	if a.load == nil || len(a.load.batch.Records) == 0 { // written long ago: its bytes are gone
		return
	}
	if len(x.sample) > sampleEach {
		x.sample = x.sample[:sampleEach]
	}
	size := 0
	for _, s := range x.sample {
		size += len(s.record.Raw)
	}
	records, most := a.load.batch.Records, len(x.sample)+sampleEach
	step := max(1, len(records)/sampleEach)
	at := 0
	for _, p := range a.load.pieces {
		for i := p.from; i < p.to; i++ {
			r := &records[at]
			at++
			fits := size+len(r.Raw) <= sampleBytes || len(x.sample) == 0
			if (at-1)%step != 0 || !fits || len(x.sample) >= most || !x.open[p.target].Has(i) {
				continue
			}
			size += len(r.Raw)
			own := *r
			own.Raw, own.EventID, own.EventTime = slices.Clone(r.Raw), slices.Clone(r.EventID), slices.Clone(r.EventTime)
			x.sample = append(x.sample, specimen{p.target, own})
		}
	}
}

// take makes a batch of the sample; what of it is not in doubt any more stays
// out. It reports whether anything is left. What is taken is on its way.
func (x *doubt) take(l *load) bool {
	for _, s := range x.sample {
		i := s.record.Index
		if !x.open[s.target].Has(i) {
			continue
		}
		x.open[s.target] = x.open[s.target].Remove(i)
		x.records--
		l.batch.Add(s.record)
		l.pieces = append(l.pieces, piece{target: s.target, from: i, to: i + 1})
	}
	return len(l.pieces) > 0
}

// turn says what the one sender that goes on in doubt is to do: ready, with the
// sample or with what is queued; else to wait that long, zero for until it is
// woken. mu is held.
func (d *delivery) turn(l *load) (ready, sample bool, wait time.Duration) {
	x, now := &d.doubt, time.Now()
	switch {
	case d.sending > 0:
		return false, false, 0
	case now.Before(x.next):
		return false, false, x.next.Sub(now)
	case !now.Before(x.ask) && x.take(l):
		return true, true, 0
	case len(d.queue) > 0:
		return true, false, 0
	case now.Before(x.ask):
		return false, false, x.ask.Sub(now)
	}
	x.sample = nil // none of it is in doubt any more
	return false, false, 0
}

// release has records sent again that were in doubt.
func (d *delivery) release(open map[*target]progress.Ranges) {
	if len(open) == 0 {
		return
	}
	var events []event
	for t, ranges := range open {
		t.suspect(false)
		for _, r := range ranges {
			d.repeats.Add(int64(r.To - r.From))
			events = append(events, event{target: t, kind: lost, from: r.From, to: r.To})
		}
	}
	d.agent.settler.submit(group{events, func() {}})
}

// suspect counts the target as one that is not to hold the listing up, or no
// longer.
func (t *target) suspect(yes bool) {
	t.stream.mu.Lock()
	defer t.stream.mu.Unlock()
	if t.suspected == yes || t.abandoned {
		return
	}
	t.suspected = yes
	if t.retry != nil || t.resync != nil || t.class == live || t.settled {
		t.suspected = false
		return
	}
	if yes {
		t.lane.failing++
		t.stream.room()
	} else {
		t.lane.failing--
	}
}

// holdDoubted holds the output, since too much is in doubt. Some of it is tried
// again and again; after a while the lanes go on whatever comes of that, to try
// what is new.
func (d *delivery) holdDoubted(ctx, abort context.Context) {
	d.mu.Lock()
	sample := d.doubt.sample
	err := d.lastErr
	d.mu.Unlock()
	if first, _ := d.failed(err, true); !first {
		return
	}
	began := time.Now()
	for n := 1; time.Since(began) < readAgain; n++ {
		if !sleep(ctx, expBackoff(n, firstProbe, maxProbe)) {
			return
		}
		if d.mended(ctx, abort, sample) {
			break
		}
	}
	d.resume(abort)
}

// mended tries a sample while the output is held, and reports whether any of it
// was taken. What was is durably settled then.
func (d *delivery) mended(ctx, abort context.Context, sample []specimen) bool {
	var l load
	for _, s := range sample {
		l.batch.Add(s.record)
		l.pieces = append(l.pieces, piece{target: s.target, from: s.record.Index, to: s.record.Index + 1})
	}
	if len(l.pieces) == 0 {
		return false
	}
	d.flying.Add(int64(len(l.pieces)))
	defer d.flying.Add(-int64(len(l.pieces)))
	a := &attempt{delivery: d, load: &l, probe: true, doubting: true, quick: true}
	a.look(ctx, abort)
	a.giveBack()
	if a.taken > 0 {
		d.commit(a, l.pieces)
	}
	return a.taken > 0
}

// giveBack leaves to the lanes what was refused: they stand still, and find it
// again when they go on.
func (a *attempt) giveBack() {
	for i := range a.verdicts {
		if v := &a.verdicts[i]; v.kind == doubted || v.kind == refused && !v.certain {
			v.kind = lost
		}
	}
}
