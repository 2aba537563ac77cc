package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

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

	takes    uint64 // of the doubt, when the attempt began
	doubting bool   // ... and whether there was doubt then
	sample   bool   // the batch is a sample of what is in doubt
	quick    bool   // all of the batch is in doubt: it is not found out what of it is refused
}

// verdict is what became of the records [from, to) of the batch.
type verdict struct {
	from, to int
	kind     eventKind
	reason   record.Reason
	err      error
	certain  bool                // with refused: the receiver was not asked
	unsure   bool                // with refused: it may be the receiver, though it takes others
	confirm  record.Confirmation // with acked: it is only once this says so
}

func (a *attempt) say(from, to int, k eventKind, r record.Reason, err error) {
	if from < to {
		a.verdicts = append(a.verdicts, verdict{from: from, to: to, kind: k, reason: r, err: err})
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
	if a.answer(from, to, err) {
		return
	}
	if to-from == 1 {
		if fault.UnsureOf(err) { // by itself, and once more at once
			if err = a.until(ctx, abort, b); a.answer(from, to, err) {
				return
			}
		}
		a.say(from, to, refused, reasonOf(fault.KindOf(err)), err)
		a.verdicts[len(a.verdicts)-1].unsure = fault.UnsureOf(err)
		return
	}
	half := from + (to-from)/2
	a.send(ctx, abort, from, half)
	a.send(ctx, abort, half, to)
}

// answer says what an answer means for the records [from, to). It returns false
// where they were refused together, and it is not known which of them are meant.
func (a *attempt) answer(from, to int, err error) bool {
	kind := fault.KindOf(err)
	switch {
	case err == nil:
		if a.written == nil {
			a.taken += to - from
		}
		a.verdicts = append(a.verdicts, verdict{from: from, to: to, kind: acked, confirm: a.written})
	case kind != fault.TooLarge && kind != fault.Refused:
		a.say(from, to, lost, "", err)
	case len(fault.RefusalsOf(err)) > 0:
		a.refuse(from, to, err)
	default:
		return false
	}
	return true
}

// refuse notes that records of [from, to) were refused one by one, as err says,
// and all others taken. What was taken is said first: it bears witness for the
// receiver, in the same answer.
func (a *attempt) refuse(from, to int, err error) {
	reason := reasonOf(fault.KindOf(err))
	single := slices.SortedFunc(slices.Values(fault.RefusalsOf(err)), func(x, y fault.RecordRefusal) int { return x.Index - y.Index })
	next := from
	var no []verdict
	for _, r := range single {
		i := from + r.Index
		if i < next || i >= to {
			continue
		}
		a.say(next, i, acked, "", nil)
		no = append(no, verdict{from: i, to: i + 1, kind: refused, reason: reason, err: errors.New(r.Answer), certain: r.Unsent})
		next = i + 1
	}
	a.say(next, to, acked, "", nil)
	a.verdicts = append(a.verdicts, no...)
	if n := to - from - len(no); n > 0 {
		a.taken += n
		a.delivery.tookSome()
	}
}

func reasonOf(k fault.Kind) record.Reason {
	if k == fault.TooLarge {
		return record.Oversize
	}
	return record.Refused
}

// until is the loop that retries, the only one. It returns nil when the batch
// was taken, TooLarge or Refused for what the batch is, or another error when
// it was given up.
func (a *attempt) until(ctx, abort context.Context, b *record.Batch) error {
	d := a.delivery
	for n, again := 1, false; ; n, again = n+1, true {
		if again {
			d.repeats.Add(int64(len(b.Records)))
		}
		err := a.once(abort, b)
		kind := fault.KindOf(err)
		switch {
		case err == nil:
			a.answered = true
			return nil
		case kind == fault.TooLarge || kind == fault.Refused:
			a.answered = true
			d.answers()
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
	began := time.Now()
	defer func() { d.took.note(time.Since(began)) }()
	w, ok := d.cfg.Output.(Confirmer)
	if !ok || a.probe || a.doubting { // these have to know whether their records arrive
		err := d.cfg.Output.Send(ctx, b)
		if err == nil {
			d.tookSome()
		}
		return err
	}
	var err error
	if a.written, err = w.Write(ctx, b); err == nil && a.written == nil {
		d.tookSome()
	}
	return err
}

// events says of every target what became of its records, but for those that
// are in doubt. why is what the receiver said of one of these.
func (a *attempt) events(pieces []piece) (all []event, open []piece, why error) {
	slices.SortFunc(a.verdicts, func(x, y verdict) int { return x.from - y.from })
	at, v := 0, 0 // at: the piece's first record in the batch
	for _, p := range pieces {
		end := at + p.to - p.from
		for i := at; i < end; {
			for a.verdicts[v].to <= i {
				v++
			}
			x := a.verdicts[v]
			to := min(x.to, end)
			if x.kind == doubted {
				open = append(open, piece{target: p.target, from: p.from + i - at, to: p.from + to - at})
				why = x.err
				i = to
				continue
			}
			all = append(all, event{
				target: p.target, kind: x.kind, from: p.from + i - at, to: p.from + to - at,
				reason: x.reason, err: x.err,
			})
			if x.kind == lost { // it was sent, and will be once more
				a.delivery.repeats.Add(int64(to - i))
			}
			if x.kind == acked {
				a.delivery.sent.add(to - i)
			}
			i = to
		}
		at = end
	}
	return all, open, why
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
			a.taken += v.to - v.from
			a.delivery.tookSome()
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
