package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

const (
	// chunkSize is how many bytes of a large object are handed on at once.
	chunkSize = 256 << 10
	// chunkRecords is how many records of an object are handed on at once.
	chunkRecords = 512
	// usualRatio is a guess at what an object inflates to, times its size.
	usualRatio = 20
	// leastReserve is what is reserved for the smallest object.
	leastReserve = 16 << 10
	// heldRecords is the same of an object that is held, and chunksOut how
	// often so many may be out at once.
	heldRecords = 4096
	chunksOut   = 4
	// recordOverhead is what a record costs beside its bytes while it waits.
	recordOverhead = 160
	// maxUnfit is how many records of an object are parked one by one. An
	// object with more of them is no log file.
	maxUnfit = 100
)

// fetcher is one download worker.
type fetcher struct {
	source   *source
	inflater cloudtrail.Inflater
	splitter cloudtrail.Splitter
	sizes    sizes
}

func newFetcher(s *source) *fetcher { return &fetcher{source: s} }

// sizes learns how far objects inflate, so as to reserve little more.
type sizes struct{ ratio float64 }

func (s *sizes) expect(stored int64) int64 {
	r := max(s.ratio, 4)
	if s.ratio == 0 {
		r = usualRatio
	}
	// The smaller objects are, the more do they differ.
	n := max(int64(r*float64(stored)), leastReserve)
	return stepUp(n + n/8 + min(n/8, leastReserve))
}

func (s *sizes) learn(stored int64, inflated int) {
	if stored <= 0 {
		return
	}
	r := float64(inflated) / float64(stored)
	if s.ratio == 0 || r > s.ratio {
		s.ratio = r
	} else {
		s.ratio += (r - s.ratio) / 16
	}
}

func (f *fetcher) run(ctx context.Context) {
	for j := f.source.queue.take(); j != nil; j = f.source.queue.take() {
		err := f.fetch(ctx, j)
		if ctx.Err() != nil {
			return // what was not handed on is found again
		}
		if err != nil {
			f.source.fetchFailed(ctx, j, err)
		}
		f.source.queue.done()
	}
}

// errPartly wraps an error that came after some of the records were handed on.
type errPartly struct {
	error
	n int // records handed on
}

func (e errPartly) Unwrap() error { return e.error }

// fetch reads one object and hands its records on. Records leave only after
// the whole of it was proven: an object that can't be held is read twice.
func (f *fetcher) fetch(ctx context.Context, j *job) error {
	s, m := f.source, f.source.memory
	stored := j.entry.Size
	reserved := min(f.sizes.expect(stored), int64(m.hold))
	if err := m.budget.take(ctx, reserved); err != nil {
		return err
	}
	c := m.get(reserved, int(reserved))
	defer c.release()

	etag := j.entry.ETag
	if j.fresh != "" {
		etag = j.fresh
	}
	body, err := s.get(ctx, j.entry.Key, etag)
	if err != nil {
		return err
	}
	defer body.Close()
	if body.Size >= 0 {
		stored = body.Size
	}
	// No more than is reserved is held: an object that turns out larger is read
	// a second time, in chunks.
	lim := cloudtrail.Limits{MaxRecord: s.agent.cfg.MaxRecord, Hold: int(reserved), Stored: stored, Expect: int(reserved)}
	data, err := f.inflater.Inflate(c.buf, body, lim)
	c.buf = data
	switch {
	case errors.Is(err, cloudtrail.ErrHold):
		f.sizes.learn(stored, 2*int(reserved))
		etag := body.ETag
		_ = body.Close()
		c.empty()
		return f.again(ctx, j, lim, etag)
	case err != nil:
		return err
	}
	f.sizes.learn(stored, len(data))
	s.count.bytes.Add(stored)
	j.reads(body.ETag)

	return f.split(ctx, j, c, lim.MaxRecord)
}

// split takes the records out of an object that is held inflated, and hands
// them on. The bytes are there already; but what is known of each record takes
// memory, too, so of an object with very many of them only some are out at a
// time.
func (f *fetcher) split(ctx context.Context, j *job, data *chunk, maxRecord int) error {
	m := f.source.memory
	f.splitter.Reset(data.buf, maxRecord)
	defer f.splitter.Reset(nil, 0) // an idle worker must not keep its last object
	var bads unfit
	slots := make(chan struct{}, chunksOut)
	for c := data; ; {
		err := f.gather(j, c, &bads)
		if extra := int64(len(c.recs)) * recordOverhead; m.budget.tryTake(extra) {
			c.reserved += extra
		}
		f.sift(j, c)
		f.hand(j, c, c.recs)
		if c != data {
			c.release()
		}
		if err != nil {
			f.finish(j, f.splitter.Records(), bads.all, brokenBy(err))
			return nil
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		data.hold()
		c = m.get(0, 0)
		c.data, c.slot = data, slots
	}
}

// gather takes records into c until it is full (nil) or the object ends
// (io.EOF) or can't be read any further.
func (f *fetcher) gather(j *job, c *chunk, bads *unfit) error {
	for len(c.recs) < heldRecords {
		r, err := f.splitter.Next()
		if err == nil {
			r.Object = j.object
			c.recs = append(c.recs, r)
			continue
		}
		if err = bads.note(err); err != nil {
			return err
		}
	}
	return nil
}

// again reads an object a second time, which was proven the first time, and
// hands its records on chunk by chunk.
func (f *fetcher) again(ctx context.Context, j *job, lim cloudtrail.Limits, etag string) error {
	s, m := f.source, f.source.memory
	body, err := s.get(ctx, j.entry.Key, etag)
	if err != nil {
		return err
	}
	defer body.Close()
	j.reads(body.ETag)
	f.splitter.ResetReader(f.inflater.Again(body, lim), lim.MaxRecord)
	var bads unfit
	for {
		if !j.live() {
			return nil
		}
		if err := m.budget.take(ctx, chunkSize+chunkRecords*recordOverhead); err != nil {
			return err
		}
		c := m.get(chunkSize+chunkRecords*recordOverhead, chunkSize)
		if cap(c.buf) < chunkSize {
			c.buf = make([]byte, 0, chunkSize)
		}
		if cap(c.recs) < chunkRecords {
			c.recs = make([]record.Record, 0, chunkRecords)
		}
		var err error
		c.buf, c.recs, err = f.splitter.Fill(c.buf[:0], c.recs[:0:chunkRecords])
		if over := int64(cap(c.buf)) + chunkRecords*recordOverhead - c.reserved; over > 0 {
			settle, gerr := m.budget.grow(ctx, over)
			if gerr != nil {
				c.release()
				return gerr
			}
			c.reserved += over
			settle() // one record at a time can be so large
		}
		for i := range c.recs {
			c.recs[i].Object = j.object
		}
		f.sift(j, c)
		f.hand(j, c, c.recs)
		c.release()
		if err == nil {
			continue
		}
		if err = bads.note(err); err == nil {
			continue
		}
		broke := brokenBy(err)
		if !errors.Is(err, io.EOF) && broke.Reason != record.NotJSON && broke.Reason != record.UnreadableRecord {
			// It was whole a moment ago: the reading failed, not the object.
			return errPartly{err, f.splitter.Records()}
		}
		s.count.bytes.Add(2 * lim.Stored)
		f.finish(j, f.splitter.Records(), bads.all, broke)
		return nil
	}
}

// unfit are the single records of an object that can't be sent.
type unfit struct{ all []*cloudtrail.Error }

// note takes an error about a single record. Any other it returns, and one
// about a single record when there have been too many.
func (u *unfit) note(err error) error {
	e, ok := errors.AsType[*cloudtrail.Error](err)
	if !ok || !e.RecordOnly {
		return err
	}
	if len(u.all) == maxUnfit {
		return &cloudtrail.Error{
			Reason: e.Reason, Record: e.Record, Offset: e.Offset,
			Err: fmt.Errorf("more than %d of its records can't be read, the last one so: %w", maxUnfit, e.Err),
		}
	}
	u.all = append(u.all, e)
	return nil
}

// brokenBy returns why the rest of an object can't be read; a zero Reason at
// its end, where nothing is left.
func brokenBy(err error) cloudtrail.Error {
	if e, ok := errors.AsType[*cloudtrail.Error](err); ok {
		return *e
	}
	if errors.Is(err, io.EOF) {
		return cloudtrail.Error{}
	}
	return cloudtrail.Error{Reason: record.Corrupt, Record: -1, Err: err}
}

// sift takes the records out of c that the source's filter leaves out. They
// count as settled; a crash before that is written down means that they are
// read and left out again.
func (f *fetcher) sift(j *job, c *chunk) {
	filter := f.source.cfg.Filter
	if filter == nil {
		return
	}
	var out progress.Ranges
	kept := 0
	for i := range c.recs {
		if r := &c.recs[i]; !filter.Keep(r) {
			out = out.Add(r.Index, r.Index+1)
			continue
		}
		c.recs[kept] = c.recs[i]
		kept++
	}
	if kept == len(c.recs) {
		return
	}
	clear(c.recs[kept:])
	c.recs = c.recs[:kept]
	f.source.count.filtered.Add(int64(out.Len()))
	j.stream.mu.Lock()
	defer j.stream.mu.Unlock()
	for _, t := range j.targets {
		for _, r := range out {
			t.acked = t.acked.Add(r.From, r.To)
		}
	}
}

// hand gives records to every lane that wants them.
func (f *fetcher) hand(j *job, c *chunk, recs []record.Record) {
	if len(recs) == 0 {
		return
	}
	st := j.stream
	for _, t := range j.targets {
		st.mu.Lock()
		runs := t.runs(recs)
		for _, r := range runs {
			t.outstanding += len(r)
		}
		st.mu.Unlock()
		for _, r := range runs {
			c.hold()
			if !t.lane.out.put(parcel{target: t, records: r, chunk: c}) {
				c.release() // held meanwhile: its lane will list again
			}
		}
	}
}

// runs returns the contiguous runs of recs that the target wants.
func (t *target) runs(recs []record.Record) [][]record.Record {
	if t.abandoned || t.settled {
		return nil
	}
	if t.only == nil && len(t.acked) == 0 && recs[len(recs)-1].Index-recs[0].Index == len(recs)-1 {
		return [][]record.Record{recs}
	}
	var runs [][]record.Record
	from := -1
	for i := range recs {
		want := t.wants(recs[i].Index)
		gap := i > 0 && recs[i].Index != recs[i-1].Index+1
		if from >= 0 && (!want || gap) {
			runs = append(runs, recs[from:i])
			from = -1
		}
		if want && from < 0 {
			from = i
		}
	}
	if from >= 0 {
		runs = append(runs, recs[from:])
	}
	return runs
}

// finish says that all records of the object have been handed on: there are n
// of them, some of them unfit; if broke has a reason, the rest can't be read.
func (f *fetcher) finish(j *job, n int, bads []*cloudtrail.Error, broke cloudtrail.Error) {
	s := f.source
	var events []event
	j.stream.mu.Lock()
	for _, t := range j.targets {
		for _, b := range bads {
			if t.wants(b.Record) {
				t.outstanding++
				events = append(events, event{target: t, kind: refused, from: b.Record, to: b.Record + 1, reason: b.Reason, err: b})
			}
		}
		e := event{target: t, kind: produced, to: n}
		if broke.Reason != "" {
			e.kind, e.reason, e.err, e.at = rest, broke.Reason, &broke, broke.Record
		}
		events = append(events, e)
	}
	j.stream.mu.Unlock()
	s.moved()
	s.count.records.Add(int64(n))
	s.trouble.overAfter(whatFetching, fetchingQuiet)
	s.agent.settler.submit(group{events, func() {}})
}
