// Package render makes the form in which a record is sent: raw (as CloudTrail
// wrote it), in an envelope that says where it came from, as CEF, or as OCSF;
// and it reduces a record that does not fit. Outputs share it: each declares
// the small interface that a Renderer has.
//
// What is made never holds a line break, whatever record, key, bucket or label
// hold. Values are taken over as bytes: no number passes through a float, and
// no member is lost; what a form has no place for goes to its place for the
// rest. docs/formats.md has the forms and the order of reducing.
package render

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Form is what a record is sent as.
type Form string

// The forms. All but CEF are one JSON object for each record.
const (
	Raw      Form = "raw"      // the bytes that CloudTrail wrote
	Envelope Form = "envelope" // those bytes within an object that says where they came from
	CEF      Form = "cef"      // ArcSight's Common Event Format, version 0
	OCSF     Form = "ocsf"     // API Activity (6003) of OCSFVersion
)

// Oversize is what becomes of a record that does not fit.
type Oversize string

// The ways.
const (
	Reduce Oversize = "reduce" // large members are left out, and the record says which
	Park   Oversize = "park"   // the record is refused as too large
)

// Config describes a Renderer.
type Config struct {
	Record   Form     // "" = Raw
	Oversize Oversize // "" = Reduce
}

// Renderer makes the form of records. It may be used by any number of
// goroutines at once.
type Renderer struct {
	form    Form
	reduce  bool
	workers sync.Pool             // of *worker
	place   atomic.Pointer[place] // of the last object: its records come together
}

// New returns the Renderer that conf describes, or an error that names what it
// does not know.
func New(conf Config) (*Renderer, error) {
	r := &Renderer{form: conf.Record, reduce: true}
	r.workers.New = func() any { return newWorker() }
	switch conf.Record {
	case "":
		r.form = Raw
	case Raw, Envelope, CEF, OCSF:
	default:
		return nil, fmt.Errorf("setting up the form of records: %q is not known", conf.Record)
	}
	switch conf.Oversize {
	case "", Reduce:
	case Park:
		r.reduce = false
	default:
		return nil, fmt.Errorf("setting up what becomes of large records: %q is not known", conf.Oversize)
	}
	return r, nil
}

const renderOp = "making the form of a record"

var (
	errLineBreak = errors.New("the record holds a line break")
	errNotObject = errors.New("the record is no JSON object")
)

// Append appends the form of rec to dst and returns the extended buffer. The
// form has at most limit bytes; 0 = no limit. With an error, dst comes back as
// long as it was. The error is a *fault.Error: TooLarge for a record that does
// not fit and may or can not be reduced, Refused for one that has no such form
// (a value that is no JSON object, a line break in it: the splitter lets
// neither pass). It holds nothing of the record.
//
// rec and what it refers to are only read, and not kept; but its Object, which
// is never changed, may be.
func (r *Renderer) Append(dst []byte, rec *record.Record, limit int) ([]byte, error) {
	if bytes.IndexByte(rec.Raw, '\n') >= 0 || bytes.IndexByte(rec.Raw, '\r') >= 0 {
		return dst, &fault.Error{Kind: fault.Refused, Op: renderOp, Err: errLineBreak}
	}
	start, size := len(dst), len(rec.Raw)
	// Raw and envelope are never shorter than the record: don't copy in vain.
	if limit <= 0 || size <= limit || r.form == CEF || r.form == OCSF {
		out, err := r.append(dst, rec, rec.Raw)
		if err != nil {
			return out[:start], &fault.Error{Kind: fault.Refused, Op: renderOp, Err: err}
		}
		if dst, size = out[:start], len(out)-start; limit <= 0 || size <= limit {
			return out, nil
		}
	}
	if !r.reduce {
		return dst, tooLarge(size, limit, "")
	}
	return r.fit(dst, rec, limit, size)
}

func tooLarge(size, limit int, reduced string) error {
	return &fault.Error{
		Kind: fault.TooLarge, Op: renderOp,
		Err:  fmt.Errorf("it has %d bytes%s, and %d are allowed", size, reduced, limit),
		Hint: "raise the limit here and at the receiver",
	}
}

// fit appends the form of rec with as many members left out as make it fit. A
// form escapes and adds, so what the record may have is found by trying.
func (r *Renderer) fit(dst []byte, rec *record.Record, limit, size int) ([]byte, error) {
	w := r.worker()
	defer r.done(w)
	cut, err := w.cutter(rec)
	if err != nil {
		return dst, tooLarge(size, limit, " and can't be reduced")
	}
	start, budget := len(dst), limit
	if r.form == CEF || r.form == OCSF {
		budget = int(int64(limit) * int64(len(rec.Raw)) / int64(size))
	}
	const tries = 8
	for try := 1; ; try++ {
		reduced, least := cut.to(budget)
		out, err := r.append(dst, rec, reduced)
		if err != nil {
			return out[:start], &fault.Error{Kind: fault.Refused, Op: renderOp, Err: err}
		}
		n := len(out) - start
		dst = out[:start]
		switch {
		case n <= limit:
			return out, nil
		case least:
			return dst, tooLarge(n, limit, " even when reduced")
		case try == tries:
			budget = 0
		default:
			budget = min(len(reduced), budget) - max(n-limit, 1)
		}
	}
}

// append appends rec's form with raw for its bytes.
func (r *Renderer) append(dst []byte, rec *record.Record, raw []byte) ([]byte, error) {
	switch r.form {
	case Envelope:
		return r.envelope(dst, rec, raw), nil
	case CEF:
		w := r.worker()
		defer r.done(w)
		return w.cef(dst, rec, raw)
	case OCSF:
		w := r.worker()
		defer r.done(w)
		return w.ocsf(dst, rec, raw)
	}
	return append(dst, raw...), nil
}

func (r *Renderer) worker() *worker { return r.workers.Get().(*worker) }

// maxKept is the largest scratch memory that a worker keeps, so that a few
// large records don't stay in memory.
const maxKept = 256 << 10

func (r *Renderer) done(w *worker) {
	w.forget()
	r.workers.Put(w)
}
