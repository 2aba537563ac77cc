package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/fault"
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

	// refusedAll: when a batch of at least so many records has so many of them
	// refused one by one and none taken, it is the output that is wrong.
	refusedAll = 8
)

// parcel is records of one object on their way to one output: a contiguous
// run of them, in one chunk.
type parcel struct {
	target  *target
	records []record.Record
	chunk   *chunk
	at      time.Time // when it was queued
}

// piece is the part of a batch that is of one target.
type piece struct {
	target   *target
	from, to int // record numbers in the object, half-open
	chunk    *chunk
}

// delivery is one output at work: a queue of records that are in memory
// already, and as many senders as the output takes connections.
type delivery struct {
	agent *Agent
	cfg   OutputConfig
	log   zerolog.Logger
	share int64 // bytes of records that may wait for it

	mu      sync.Mutex
	changed *sync.Cond
	queue   []parcel // guarded by mu, as all below
	records int
	bytes   int64
	closed  bool
	// fullSince is when it was last not hungry any more, and lag wakes whoever
	// waits for it if it stays so.
	fullSince time.Time
	lag       *time.Timer
	// held: nothing is sent but a probe. failing is since when attempts have
	// failed, zero if the last one did not.
	held    bool
	onHold  chan struct{} // closed while held
	failing time.Time
	lastErr error
	sending int // senders between taking a batch and being done with it
	quiet   *sync.Cond

	// tokens bound what is sent and not yet committed: a sender takes one
	// before it sends a batch, and the commit gives it back.
	tokens chan struct{}

	trouble *troubles
	sent    atomic.Int64 // records acknowledged
	batches atomic.Int64
	retries atomic.Int64
	acked   atomic.Int64 // when a batch was last acknowledged; nanoseconds of agent.mono
}

func newDelivery(a *Agent, cfg OutputConfig) *delivery {
	log := a.cfg.Log.With().Str("output", cfg.Name).Logger()
	d := &delivery{
		agent: a, cfg: cfg, log: log, onHold: make(chan struct{}),
		tokens:  make(chan struct{}, 2*cfg.Connections),
		trouble: newTroubles(log),
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
	senders.Wait()
	waiters.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
	if d.lag != nil {
		d.lag.Stop()
	}
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
	lagging          // it has been full for too long, or is held: nobody waits
)

// outOfStep is how long an output may be full before others, that take the same
// objects, go on without it: what it missed is fetched for it alone.
const outOfStep = 2 * time.Second

// accepts tells whether more records may be fetched for the output.
func (d *delivery) accepts() appetite {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.held:
		return lagging
	case d.hungry():
		return hungry
	case time.Since(d.fullSince) > outOfStep:
		return lagging
	}
	return full
}

// ahead is how many batches for each connection are kept ready. More would make
// what is new wait behind what is old; fewer would make senders wait.
const ahead = 4

// hungry reports whether less waits than should; mu is held.
func (d *delivery) hungry() bool {
	n := ahead * d.cfg.Connections
	return d.records < n*d.cfg.BatchRecords && d.bytes < min(d.share, int64(n)*int64(d.cfg.BatchBytes))
}

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
	wasHungry := d.hungry()
	d.queue = append(d.queue, p)
	d.records += len(p.records)
	for i := range p.records {
		d.bytes += int64(len(p.records[i].Raw))
	}
	if wasHungry && !d.hungry() {
		d.fullSince = p.at
		if d.lag == nil {
			d.lag = time.AfterFunc(outOfStep+time.Millisecond, func() { d.agent.room(d) })
		} else {
			d.lag.Reset(outOfStep + time.Millisecond)
		}
	}
	if len(d.queue) == 1 || d.full() {
		d.changed.Signal()
	}
	return true
}

// full reports whether there is enough for a batch.
func (d *delivery) full() bool {
	return d.records >= d.cfg.BatchRecords || d.bytes >= int64(d.cfg.BatchBytes)
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
// that the output accepts more records than before.
func (d *delivery) next(l *load) (ok, room bool) {
	l.reset()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch {
		case d.closed:
			return false, false
		case len(d.queue) == 0:
			d.changed.Wait()
			continue
		case !d.full():
			if wait := d.cfg.BatchWait - time.Since(d.queue[0].at); wait > 0 {
				t := time.AfterFunc(wait, d.changed.Broadcast)
				d.changed.Wait()
				t.Stop()
				continue
			}
		}
		break
	}
	accepted := d.hungry()
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
		l.pieces = append(l.pieces, piece{p.target, from, from + take, p.chunk})
		n += take
		if take < len(p.records) {
			p.chunk.hold()
			p.records = p.records[take:]
			break
		}
		d.queue[0] = parcel{}
		d.queue = d.queue[1:]
	}
	d.records -= n
	d.bytes -= int64(l.batch.Bytes)
	d.sending++
	if len(d.queue) > 0 {
		d.changed.Signal() // another sender may have the rest
	}
	return true, !accepted && d.hungry()
}

// sender takes batches and delivers them.
func (d *delivery) sender(ctx, abort context.Context, waiters *sync.WaitGroup) {
	var l load
	for {
		ok, room := d.next(&l)
		if !ok {
			return
		}
		if room {
			d.agent.room(d)
		}
		select {
		case d.tokens <- struct{}{}:
			d.deliver(ctx, abort, &l, waiters)
		case <-abort.Done():
			l.free()
		}
		d.mu.Lock()
		d.sending--
		d.quiet.Broadcast()
		d.mu.Unlock()
	}
}

// free lets go of the memory of the batch's records.
func (l *load) free() {
	for i := range l.pieces {
		l.pieces[i].chunk.release()
		l.pieces[i].chunk = nil
	}
}

// deliver sends a batch until the fate of each record is known. It holds a
// token, which goes back when what was settled is committed; with a Confirmer,
// when the batch is written.
func (d *delivery) deliver(ctx, abort context.Context, l *load, waiters *sync.WaitGroup) {
	a := &attempt{delivery: d, load: l}
	a.send(ctx, abort, 0, len(l.batch.Records))
	l.free()
	if a.probe {
		_ = a.confirm(abort) // what it says is in the verdicts, too
		// The lanes come back when what the probe settled is durable: else
		// they would find it open, and it would be sent again.
		committed := make(chan struct{})
		d.agent.settler.submit(group{a.events(l.pieces), func() { close(committed) }})
		<-committed
		<-d.tokens
		if a.answered {
			d.resume(abort)
		}
		return
	}
	if !slices.ContainsFunc(a.verdicts, func(v verdict) bool { return v.confirm != nil }) {
		d.agent.settler.submit(group{a.events(l.pieces), func() { <-d.tokens }})
		return
	}
	// What is known of the batch from here on is which records it was of.
	<-d.tokens
	pieces := slices.Clone(l.pieces)
	a.load, a.sub = nil, record.Batch{}
	waiters.Go(func() {
		err := a.confirm(abort)
		if abort.Err() != nil && err != nil {
			return
		}
		d.agent.settler.submit(group{a.events(pieces), func() {}})
		if err == nil {
			d.works()
		} else if first, _ := d.failed(err, false); first {
			d.holdBlind(ctx, abort)
		}
	})
}

// confirm waits until what was written is acknowledged. What is not confirmed
// has to be read and sent again; the error is why.
func (a *attempt) confirm(ctx context.Context) (failure error) {
	written := a.verdicts
	a.verdicts = nil
	for _, v := range written {
		if v.confirm == nil {
			a.verdicts = append(a.verdicts, v)
			continue
		}
		switch err := v.confirm.Wait(ctx); {
		case err == nil:
			a.say(v.from, v.to, acked, "", nil)
		case len(fault.RefusalsOf(err)) > 0:
			a.refuse(v.from, v.to, err)
		default:
			failure = err
			a.say(v.from, v.to, lost, "", err)
		}
	}
	return failure
}

// attempt is the delivery of one batch.
type attempt struct {
	delivery *delivery
	load     *load
	sub      record.Batch // reused for parts of the batch

	verdicts []verdict
	written  record.Confirmation // of the last attempt, if it is to come
	probe    bool                // the output is held, and this attempt goes on trying
	answered bool                // the output took or refused something
	taken    int                 // records taken
	refused  int                 // records refused one by one
}

// verdict is what became of the records [from, to) of the batch.
type verdict struct {
	from, to int
	kind     eventKind
	reason   record.Reason
	err      error
	confirm  record.Confirmation // with acked: it is only once this says so
}

func (a *attempt) say(from, to int, k eventKind, r record.Reason, err error) {
	if from < to {
		a.verdicts = append(a.verdicts, verdict{from: from, to: to, kind: k, reason: r, err: err})
	}
}

// unsay takes back all verdicts: nothing is known to have been taken.
func (a *attempt) unsay() {
	for i := range a.verdicts {
		a.verdicts[i].kind, a.verdicts[i].confirm = lost, nil
	}
}

// send delivers the records [from, to) of the batch, in halves where they
// can't be taken together.
func (a *attempt) send(ctx, abort context.Context, from, to int) {
	b := &a.load.batch
	if to-from < len(b.Records) {
		b = &a.sub
		b.Records, b.Bytes = b.Records[:0], 0
		for _, r := range a.load.batch.Records[from:to] {
			b.Add(r)
		}
	}
	err := a.until(ctx, abort, b)
	if err == nil {
		a.taken += to - from
		a.verdicts = append(a.verdicts, verdict{from: from, to: to, kind: acked, confirm: a.written})
		return
	}
	kind := fault.KindOf(err)
	if kind != fault.TooLarge && kind != fault.Refused {
		a.say(from, to, lost, "", err)
		return
	}
	if len(fault.RefusalsOf(err)) > 0 {
		a.refuse(from, to, err)
		return
	}
	if to-from == 1 {
		a.refused++
		a.say(from, to, refused, reasonOf(kind), err)
		return
	}
	half := from + (to-from)/2
	a.send(ctx, abort, from, half)
	a.send(ctx, abort, half, to)
}

// refuse notes that records of [from, to) were refused one by one, as err says,
// and all others taken.
func (a *attempt) refuse(from, to int, err error) {
	reason := reasonOf(fault.KindOf(err))
	single := slices.SortedFunc(slices.Values(fault.RefusalsOf(err)), func(x, y fault.RecordRefusal) int { return x.Index - y.Index })
	next := from
	for _, r := range single {
		i := from + r.Index
		if i < next || i >= to {
			continue
		}
		a.say(next, i, acked, "", nil)
		a.say(i, i+1, refused, reason, errors.New(r.Answer))
		a.taken += i - next
		next = i + 1
	}
	a.say(next, to, acked, "", nil)
	a.taken += to - next
}

func reasonOf(k fault.Kind) record.Reason {
	if k == fault.TooLarge {
		return record.Oversize
	}
	return record.Refused
}

// errRefusesAll: one record after the other is refused and none taken.
var errRefusesAll = errors.New("the receiver refuses every record")

// until is the loop that retries, the only one. It returns nil when the batch
// was taken, TooLarge or Refused for what the batch is, or another error when
// it was given up.
func (a *attempt) until(ctx, abort context.Context, b *record.Batch) error {
	d := a.delivery
	for n := 1; ; n++ {
		err := a.once(abort, b)
		kind := fault.KindOf(err)
		switch {
		case err == nil:
			a.answered = true
			return nil
		case kind == fault.Refused && a.taken == 0 && a.refused >= refusedAll:
			err = &fault.Error{
				Kind: fault.Held, Err: fmt.Errorf("%w: %w", errRefusesAll, err),
				Hint: "compare the output's format and url with what the receiver expects",
			}
			// None of them is parked for what is the output's fault.
			a.unsay()
		case kind == fault.TooLarge || kind == fault.Refused:
			a.answered = true
			d.works()
			return err
		}
		if abort.Err() != nil {
			return err
		}
		d.retries.Add(1)
		first, held := d.failed(err, fault.KindOf(err) == fault.Held)
		if first {
			a.probe = true
			n = 1
		}
		if held && !a.probe || ctx.Err() != nil {
			return err
		}
		wait := expBackoff(n, firstRetry, maxRetry)
		if held {
			wait = expBackoff(n, firstProbe, maxProbe)
		}
		wait = max(wait, min(fault.RetryAfterOf(err), maxRetryAfter))
		if !d.pause(ctx, wait, a.probe) {
			return err
		}
	}
}

// once makes one attempt.
func (a *attempt) once(ctx context.Context, b *record.Batch) error {
	d := a.delivery
	a.written = nil
	d.batches.Add(1)
	w, ok := d.cfg.Output.(Confirmer)
	if !ok || a.probe { // a probe has to know whether its records arrive
		err := d.cfg.Output.Send(ctx, b)
		if err == nil {
			d.works()
		}
		return err
	}
	var err error
	if a.written, err = w.Write(ctx, b); err == nil && a.written == nil {
		d.works()
	}
	return err
}

// events says of every target what became of its records.
func (a *attempt) events(pieces []piece) []event {
	slices.SortFunc(a.verdicts, func(x, y verdict) int { return x.from - y.from })
	var all []event
	at, v := 0, 0 // at: the piece's first record in the batch
	for _, p := range pieces {
		end := at + p.to - p.from
		for i := at; i < end; {
			for a.verdicts[v].to <= i {
				v++
			}
			x := a.verdicts[v]
			to := min(x.to, end)
			all = append(all, event{
				target: p.target, kind: x.kind, from: p.from + i - at, to: p.from + to - at,
				reason: x.reason, err: x.err,
			})
			if x.kind == acked {
				a.delivery.sent.Add(int64(to - i))
			}
			i = to
		}
		at = end
	}
	return all
}
