package agent

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/record"
)

const (
	// holdAfter is how long an output may fail with errors that pass by
	// themselves before it is held, so that it holds nobody up.
	holdAfter = 5 * time.Second

	firstRetry = 250 * time.Millisecond
	maxRetry   = 10 * time.Second
	firstProbe = 2 * time.Second
	maxProbe   = time.Minute
	// maxRetryAfter bounds how long a receiver may ask to be left alone.
	maxRetryAfter = 5 * time.Minute

	// refusedAll: of a batch that is taken in part, so many records may have been
	// refused before the first was taken, to be parked without a second look. When
	// so many are in doubt, the output counts as held.
	refusedAll = 8
)

// parcel is records of one object on their way to one output: a contiguous
// run of them, in one chunk.
type parcel struct {
	target  *target
	records []record.Record
	chunk   *chunk
	at      time.Time // when it was queued
	memory  int64     // that it keeps, see stakes
}

// piece is the part of a batch that is of one target.
type piece struct {
	target   *target
	from, to int    // record numbers in the object, half-open
	chunk    *chunk // nil where the records are copies
	kept     int64  // memory that goes back with the last piece of a parcel
}

// delivery is one output at work: a queue of records that are in memory
// already, and as many senders as the output takes connections.
type delivery struct {
	agent *Agent
	cfg   OutputConfig
	log   zerolog.Logger

	mu      sync.Mutex
	changed *sync.Cond
	queue   []parcel // guarded by mu, as all below
	records int
	bytes   int64
	stakes  stakes
	closed  bool
	// behind: it held others up for so long that they don't wait for it any
	// more, until it has sent all it had. watched: it is looked at from time to
	// time whether it does. heldUp is how long it did, less what was well since.
	behind  bool
	watched bool
	heldUp  time.Duration
	// held: nothing is sent but a probe. failing is since when attempts have
	// failed, zero if the last one did not.
	held    bool
	onHold  chan struct{} // closed while held
	noMore  bool          // nothing more is coming, so that no batch waits to get full
	failing time.Time
	lastErr error
	doubt   doubt
	sending int // senders between taking a batch and being done with it
	// uncommitted is how many batches are confirmed, of a Confirmer, and not
	// committed.
	uncommitted int
	quiet       *sync.Cond

	// tokens bound what is sent and not yet committed: a sender takes one
	// before it sends a batch, and the commit gives it back.
	tokens chan struct{}

	trouble *troubles
	sent    *meter       // records acknowledged
	flying  atomic.Int64 // records being sent, or sent and not confirmed
	batches atomic.Int64
	retries atomic.Int64
	repeats atomic.Int64 // records sent once more
	took    latency      // of one attempt
	acked   atomic.Int64 // when a batch was last acknowledged; nanoseconds of agent.mono
}

func newDelivery(a *Agent, cfg OutputConfig) *delivery {
	log := a.cfg.Log.With().Str("output", cfg.Name).Logger()
	d := &delivery{
		agent: a, cfg: cfg, log: log, onHold: make(chan struct{}),
		tokens:  make(chan struct{}, 2*cfg.Connections),
		trouble: newTroubles(log), sent: newMeter(),
	}
	d.changed = sync.NewCond(&d.mu)
	d.quiet = sync.NewCond(&d.mu)
	return d
}

// run sends until ctx ends; what has been taken up by then is sent to its end,
// or until abort ends.
func (d *delivery) run(ctx, abort context.Context) {
	var senders, waiters sync.WaitGroup
	for range d.cfg.Connections {
		senders.Go(func() { d.sender(ctx, abort, &waiters) })
	}
	stop := context.AfterFunc(ctx, d.close)
	defer stop()
	wake := context.AfterFunc(abort, func() { d.committed(0) })
	defer wake()
	senders.Wait()
	waiters.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
}

func (d *delivery) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.changed.Broadcast()
}

// appetite is whether an output takes more records.
type appetite int

const (
	hungry  appetite = iota
	full             // soon again: whoever is in step with it waits
	lagging          // it has held others up for too long, or is held: nobody waits
)

// outOfStep is how long an output may hold up others, that take the same
// objects, before they go on without it: what it missed is fetched for it alone.
// Outputs that are all full hold nobody up: then it is not fetching that counts.
// It is looked at every stepLook.
const (
	outOfStep = 2 * time.Second
	stepLook  = 100 * time.Millisecond
)

// accepts tells whether more records of a source may be fetched for the output.
func (d *delivery) accepts(s *source) appetite {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.held:
		return lagging
	case d.hungry() && !d.stakes.crams(s):
		return hungry
	case d.behind, d.doubt.on():
		return lagging
	}
	return full
}

// ahead is how many batches for each connection are kept ready. More would make
// what is new wait behind what is old; fewer would make senders wait.
const ahead = 2

// hungry reports whether less waits than should; mu is held.
func (d *delivery) hungry() bool {
	n := ahead * d.cfg.Connections
	return d.records < n*d.cfg.BatchRecords && d.bytes < int64(n)*int64(d.cfg.BatchBytes)
}

// sated reports whether the output takes no more, be it of one source; mu is
// held.
func (d *delivery) sated() bool { return !d.hungry() || d.stakes.crammed > 0 }

func (d *delivery) isHeld() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held
}

// put queues a parcel. It never blocks: the memory has been accounted for. It
// reports false, and keeps nothing, while the output is held or stopped.
func (d *delivery) put(p parcel) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held || d.closed {
		return false
	}
	p.at = time.Now()
	if len(d.queue) == 0 && d.sending == 0 && !d.doubt.on() {
		d.acked.Store(int64(time.Since(d.agent.mono))) // it had nothing to do
	}
	p.memory = p.kept()
	d.stakes.add(p.target.stream.source, p.memory, p.memory)
	d.queue = append(d.queue, p)
	d.records += len(p.records)
	for i := range p.records {
		d.bytes += int64(len(p.records[i].Raw))
	}
	if !d.watched && !d.behind && len(d.agent.outputs) > 1 && d.sated() {
		d.watched = true
		time.AfterFunc(stepLook, d.watch)
	}
	if len(d.queue) == 1 || d.full() {
		d.changed.Signal() // in doubt whoever is woken goes on
	}
	return true
}

// watch looks whether the output holds others up, and again after a while.
func (d *delivery) watch() {
	starves := d.agent.starves(d)
	d.mu.Lock()
	if d.closed || d.held || d.records == 0 && d.stakes.crammed == 0 {
		d.watched, d.heldUp = false, 0
		d.mu.Unlock()
		return
	}
	if starves && d.sated() {
		d.heldUp += stepLook
	} else {
		d.heldUp = max(0, d.heldUp-stepLook/2)
	}
	d.behind = d.heldUp >= outOfStep
	d.watched = !d.behind
	if d.watched {
		time.AfterFunc(stepLook, d.watch)
	}
	behind := d.behind
	d.mu.Unlock()
	if behind {
		d.agent.room(d) // nobody waits for it from here on
	}
}

// starves reports whether another output, that takes what d takes, has senders
// with nothing to send.
func (a *Agent) starves(d *delivery) bool {
	for _, o := range a.outputs {
		inStep := slices.ContainsFunc(a.sources, func(s *source) bool { return o.cfg.takes(s.cfg.Name) && d.cfg.takes(s.cfg.Name) })
		if o != d && inStep && o.starved() {
			return true
		}
	}
	return false
}

// waitForMore says whether a batch that is not full may wait for more records.
func (d *delivery) waitForMore(yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noMore == yes {
		d.noMore = !yes
		d.changed.Broadcast()
	}
}

func (d *delivery) starved() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.held && !d.full() && d.sending < d.cfg.Connections
}

// full reports whether there is enough for a batch, or no memory for more.
func (d *delivery) full() bool {
	return d.stakes.pressed > 0 || d.records >= d.cfg.BatchRecords || d.bytes >= int64(d.cfg.BatchBytes)
}

// load is a batch with where its records came from.
type load struct {
	batch  record.Batch
	pieces []piece
}

// reset makes l empty and keeps its memory.
func (l *load) reset() {
	clear(l.batch.Records)
	l.batch.Records = l.batch.Records[:0]
	l.batch.Bytes = 0
	clear(l.pieces)
	l.pieces = l.pieces[:0]
}

// next waits for a batch: a full one, or what there is when its first record
// has waited long enough. ok is false when the output is stopped; room tells
// that the output accepts more records than before; sample, that the batch is of
// what is in doubt.
func (d *delivery) next(l *load) (ok, room, sample bool) {
	l.reset()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if !d.closed && d.doubt.on() {
			ready, sample, wait := d.turn(l)
			switch {
			case !ready:
				d.waitFor(wait)
				continue
			case sample:
				d.sending++
				d.flying.Add(int64(len(l.batch.Records)))
				return true, false, true
			}
		}
		switch {
		case d.closed:
			return false, false, false
		case len(d.queue) == 0:
			d.changed.Wait()
			continue
		case !d.full() && !d.noMore:
			if wait := d.cfg.BatchWait - time.Since(d.queue[0].at); wait > 0 {
				d.waitFor(wait)
				continue
			}
		}
		break
	}
	wasHungry := d.hungry()
	n := 0
	for len(d.queue) > 0 && len(l.batch.Records) < d.cfg.BatchRecords {
		p := &d.queue[0]
		take := 0
		for take < len(p.records) && len(l.batch.Records) < d.cfg.BatchRecords {
			r := p.records[take]
			if len(l.batch.Records) > 0 && l.batch.Bytes+len(r.Raw) > d.cfg.BatchBytes {
				break
			}
			l.batch.Add(r)
			take++
		}
		if take == 0 {
			break
		}
		from := p.records[0].Index
		l.pieces = append(l.pieces, piece{target: p.target, from: from, to: from + take, chunk: p.chunk})
		n += take
		if take < len(p.records) {
			p.chunk.hold()
			p.records = p.records[take:]
			break
		}
		l.pieces[len(l.pieces)-1].kept = p.memory
		d.stakes.add(p.target.stream.source, -p.memory, 0)
		d.queue[0] = parcel{}
		d.queue = d.queue[1:]
	}
	d.records -= n
	d.bytes -= int64(l.batch.Bytes)
	d.sending++
	d.flying.Add(int64(n))
	if len(d.queue) > 0 {
		d.changed.Signal() // another sender may have the rest
	}
	if d.records == 0 && d.stakes.crammed == 0 {
		d.behind, d.heldUp = false, 0
	}
	return true, !wasHungry && d.hungry(), false
}

// waitFor waits until something changes, or that long at most; with 0 as long
// as it takes. mu is held.
func (d *delivery) waitFor(wait time.Duration) {
	if wait > 0 {
		t := time.AfterFunc(wait, d.changed.Broadcast)
		defer t.Stop()
	}
	d.changed.Wait()
}

// sender takes batches and delivers them.
func (d *delivery) sender(ctx, abort context.Context, waiters *sync.WaitGroup) {
	var l load
	for {
		ok, room, sample := d.next(&l)
		if !ok {
			return
		}
		if room {
			d.agent.room(d)
		}
		d.awaitCommits(abort)
		select {
		case d.tokens <- struct{}{}:
			d.deliver(ctx, abort, &l, sample, waiters)
		case <-abort.Done():
			d.flying.Add(-int64(len(l.batch.Records)))
			d.free(&l)
		}
		d.mu.Lock()
		d.sending--
		d.quiet.Broadcast()
		if d.doubt.on() {
			d.changed.Broadcast() // one at a time
		}
		d.mu.Unlock()
	}
}

// awaitCommits waits while more is confirmed and not committed than a commit
// takes: if commits fail, no more is sent.
func (d *delivery) awaitCommits(abort context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.uncommitted > cap(d.tokens) && abort.Err() == nil {
		d.quiet.Wait()
	}
}

// committed notes that n more batches are confirmed (1) or committed (-1).
func (d *delivery) committed(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uncommitted += n
	d.quiet.Broadcast()
}

// free lets go of the memory of the batch's records.
func (l *load) free() {
	for i := range l.pieces {
		if c := l.pieces[i].chunk; c != nil {
			c.release()
		}
		l.pieces[i].chunk = nil
	}
	clear(l.batch.Records) // an idle sender must not keep the last ones
}

// deliver sends a batch until the fate of each record is known, or in doubt. It
// holds a token, which goes back when what was settled is committed; with a
// Confirmer, when the batch is written.
func (d *delivery) deliver(ctx, abort context.Context, l *load, sample bool, waiters *sync.WaitGroup) {
	a := &attempt{delivery: d, load: l, sample: sample}
	d.mu.Lock()
	a.takes, a.doubting = d.doubt.takes, d.doubt.on()
	d.mu.Unlock()
	n := int64(len(l.batch.Records))
	if a.quick = a.doubting && a.known(l.pieces); a.quick {
		a.look(ctx, abort)
	} else {
		a.send(ctx, abort, 0, int(n))
	}
	if a.probe {
		_ = a.confirm(abort) // what it says is in the verdicts, too
		d.free(l)
		d.flying.Add(-n)
		a.judge(l.pieces)
		a.giveBack()
		// The lanes come back when what the probe settled is durable: else
		// they would find it open, and it would be sent again.
		d.commit(a, l.pieces)
		<-d.tokens
		if a.answered {
			d.resume(abort)
		}
		return
	}
	if !slices.ContainsFunc(a.verdicts, func(v verdict) bool { return v.confirm != nil }) {
		full := d.settle(a, l.pieces, func() { <-d.tokens })
		d.free(l)
		d.flying.Add(-n)
		if full {
			d.holdDoubted(ctx, abort)
		}
		return
	}
	// What is known of the batch from here on is which records it was of.
	d.free(l)
	<-d.tokens
	pieces := slices.Clone(l.pieces)
	a.load, a.sub = nil, record.Batch{}
	waiters.Go(func() {
		err := a.confirm(abort)
		d.flying.Add(-n)
		if abort.Err() != nil && err != nil {
			return
		}
		d.committed(1)
		full := d.settle(a, pieces, func() { d.committed(-1) })
		if err == nil {
			d.answers()
		} else if first, _ := d.failed(err, false); first {
			d.holdBlind(ctx, abort)
			return
		}
		if full {
			d.busy(1)
			d.holdDoubted(ctx, abort)
			d.busy(-1)
		}
	})
}

// settle hands over what became of a batch; done is called when it is durable.
// full reports that so much is in doubt that the output has to be held.
func (d *delivery) settle(a *attempt, pieces []piece, done func()) (full bool) {
	a.judge(pieces)
	events, open, why := a.events(pieces)
	if len(open) > 0 {
		var again bool
		if again, full = d.suspect(a, open, why); again {
			for _, p := range open {
				d.repeats.Add(int64(p.to - p.from))
				events = append(events, event{target: p.target, kind: lost, from: p.from, to: p.to})
			}
		}
	}
	d.agent.settler.submit(group{events, done})
	return full
}

// commit makes durable what became of a batch before it returns.
func (d *delivery) commit(a *attempt, pieces []piece) {
	committed := make(chan struct{})
	events, _, _ := a.events(pieces)
	d.agent.settler.submit(group{events, func() { close(committed) }})
	<-committed
}

// busy counts n more senders at work.
func (d *delivery) busy(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sending += n
	d.quiet.Broadcast()
}
