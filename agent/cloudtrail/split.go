package cloudtrail

import (
	"io"

	"github.com/trailpoll/trailpoll/agent/record"
)

// Splitter walks an inflated object once and hands out its records. It accepts
// {"Records":[…]} with any other members beside, in any order, and a bare
// array of records, as has been seen of aggregated events. "Records":null
// counts as empty, and of several members Records each counts. Anything else,
// a byte order mark included, is record.NotJSON.
//
// A Splitter must be Reset before use, and may be Reset to be used again: it
// keeps its memory, and allocates no more once that has grown. It is for one
// goroutine at a time.
type Splitter struct {
	win window
	max int // most bytes of one record

	state   state
	comma   bool // an element or member came before: a comma must, too
	records bool // a member Records, or a bare array, was met
	index   int  // number of the next record
	err     error

	cur     current // the record that Next or Fill is about
	pending bool    // cur is found and not yet handed out
	scan    scanner
	skim    skimmer
}

// state is where in the object a Splitter is.
type state int

const (
	atStart   state = iota // before the envelope
	inObject               // between the members of the envelope
	inRecords              // between records inside an envelope
	inArray                // between records of a bare array
	atEnd                  // behind the envelope
)

// current is a record in the window.
type current struct {
	index                   int
	raw, eventID, eventTime span // in window.buf
}

// Reset makes s walk data, which holds a whole inflated object. It belongs to
// s until the end is reached, as s closes up records in it that hold line
// breaks. The records handed out are parts of it and stay valid. maxRecord is
// the most bytes that one record may have.
func (s *Splitter) Reset(data []byte, maxRecord int) {
	s.reset(maxRecord)
	s.win.resetBytes(data)
}

// ResetReader makes s walk what r inflates, most of all an Inflater. It holds
// at most maxRecord and 64 KiB of it at once. The records that Next hands out
// are valid until the next call of any method.
func (s *Splitter) ResetReader(r io.Reader, maxRecord int) {
	s.reset(maxRecord)
	s.win.resetReader(r, maxRecord)
}

func (s *Splitter) reset(maxRecord int) {
	*s = Splitter{max: maxRecord, win: s.win, scan: s.scan, skim: s.skim}
}

// Next returns the next record, without its Object. At the end of the object
// the error is io.EOF. An *Error with RecordOnly set is about one record, and
// the next call goes on behind it; any other error is final and comes again
// with each call. An error of the reader that is walked is returned as it is,
// except that an *Error is given the number of the record.
//
// A record's bytes are as they stand in the object, less the runs of white
// space outside strings that hold a line break. The limit counts them as they
// stand.
func (s *Splitter) Next() (record.Record, error) {
	if err := s.find(); err != nil {
		return record.Record{}, err
	}
	s.pending = false
	return s.cur.in(s.win.buf, 0), nil
}

// Fill copies records into buf[len(buf):cap(buf)] and appends them, as parts
// of buf and without their Object, to recs, up to its capacity. It returns
// both, and a nil error when the next record did not fit; an error, as of
// Next, is about what comes behind the last record returned.
//
// buf and recs stay the caller's, and keep their memory with one exception: a
// record that an empty buf has no room for is returned alone, in a buf of its
// own size.
func (s *Splitter) Fill(buf []byte, recs []record.Record) ([]byte, []record.Record, error) {
	for len(recs) < cap(recs) {
		if err := s.find(); err != nil {
			return buf, recs, err
		}
		raw := s.win.buf[s.cur.raw.from:s.cur.raw.to]
		if len(raw) > cap(buf)-len(buf) {
			if len(buf) > 0 {
				return buf, recs, nil
			}
			buf = make([]byte, 0, len(raw))
		}
		shift := len(buf) - s.cur.raw.from
		buf = append(buf, raw...)
		recs = append(recs, s.cur.in(buf, shift))
		s.pending = false
	}
	return buf, recs, nil
}

// Records returns how many records were met so far, unfit ones included.
func (s *Splitter) Records() int { return s.index }

// in returns the record as parts of b, where it stands shifted.
func (c *current) in(b []byte, shift int) record.Record {
	part := func(x span) []byte {
		if x.from == x.to {
			return nil
		}
		return b[x.from+shift : x.to+shift : x.to+shift]
	}
	return record.Record{
		Index:     c.index,
		Raw:       part(c.raw),
		EventID:   part(c.eventID),
		EventTime: part(c.eventTime),
	}
}

// find makes cur the next record, unless it still is.
func (s *Splitter) find() error {
	if s.pending {
		return nil
	}
	for s.err == nil {
		switch s.state {
		case atStart:
			s.err = s.begin()
		case inObject:
			s.err = s.member()
		case inRecords, inArray:
			var more bool
			if more, s.err = s.more(); more {
				return s.element()
			}
		case atEnd:
			s.err = s.end()
		}
	}
	return s.err
}

// element reads the record that begins at win.pos and makes it cur.
func (s *Splitter) element() error {
	end, bad := s.whole()
	from := s.win.pos
	switch {
	case bad != sound:
		return s.unfit(bad, s.win.base+int64(end))
	case end-from > s.max:
		return s.unfit(long, s.win.offset())
	}
	s.win.pos = end
	if s.win.buf[from] != '{' {
		return s.refuse(record.UnreadableRecord, scalar, s.win.base+int64(from))
	}
	if s.scan.lineBreak {
		// Rare: close it up and look for its members again, where they are
		// now. What was valid still is.
		end = from + compact(s.win.buf[from:end])
		_, _ = s.scan.value(s.win.buf[:end], from)
	}
	s.cur = current{index: s.index, raw: span{from, end}, eventID: s.scan.eventID, eventTime: s.scan.eventTime}
	if s.cur.eventID.from == s.cur.eventID.to {
		s.cur.eventID = s.scan.altID
	}
	s.index++
	s.pending = true
	return nil
}

// whole gets the value that begins at win.pos into the window as a whole and
// checks it. It returns the index behind it, or that of the byte at fault.
// long means that it is larger than a record may be, short that the
// object ends first.
func (s *Splitter) whole() (int, flaw) {
	for {
		end, bad := s.scan.value(s.win.buf, s.win.pos)
		if bad != short {
			return end, bad
		}
		if len(s.win.buf)-s.win.pos > s.max {
			return s.win.pos, long
		}
		if !s.win.fetch() {
			return len(s.win.buf), short
		}
	}
}

// unfit passes over the record that begins at win.pos, if its end can be
// found, and returns the error for it. Otherwise, the rest of the object can't
// be read.
func (s *Splitter) unfit(bad flaw, at int64) error {
	if bad == short {
		s.err = s.cut()
		return s.err
	}
	from := s.win.offset()
	length, how := s.pass()
	var next byte
	more := how != skimMore
	if how == skimEnd {
		// It is an end only where a record may end.
		next, more = s.win.peek()
	}
	switch {
	case !more:
		s.err = s.cut()
		return s.err
	case next != ',' && next != ']':
		s.err = s.broken(bad, at)
		return s.err
	case length > int64(s.max):
		return s.refuse(record.TooLarge, long, from)
	}
	return s.refuse(record.UnreadableRecord, bad, at)
}

// pass moves win.pos behind the value there, and returns the value's length.
// skimMore means that the object ends first.
func (s *Splitter) pass() (int64, skim) {
	switch kinds[s.win.buf[s.win.pos]] {
	case kindObject, kindArray, kindQuote:
	default:
		return 0, skimAstray
	}
	from := s.win.offset()
	s.skim.reset()
	for {
		n, how := s.skim.feed(s.win.buf[s.win.pos:])
		s.win.pos += n
		if how != skimMore || !s.win.fetch() {
			return s.win.offset() - from, how
		}
	}
}

// refuse returns the error that makes this record unfit, and steps on.
func (s *Splitter) refuse(reason record.Reason, bad flaw, at int64) error {
	s.index++
	return &Error{Reason: reason, Record: s.index - 1, Offset: at, RecordOnly: true, Err: bad}
}

// broken returns the error that ends the reading of the object.
func (s *Splitter) broken(bad flaw, at int64) error {
	return &Error{Reason: record.NotJSON, Record: s.index, Offset: at, Err: bad}
}

// cut returns the error for an object that ends too early: that of the reader
// if it has one.
func (s *Splitter) cut() error {
	if s.win.err != nil {
		return atRecord(s.win.err, s.index)
	}
	return s.broken(short, s.win.base+int64(len(s.win.buf)))
}

// compact takes out of b, which is valid JSON, the runs of white space outside
// strings that hold a line break, and returns how many bytes are left.
func compact(b []byte) int {
	n := 0
	for i := 0; i < len(b); {
		from := i
		switch kinds[b[i]] {
		case kindSpace:
			lineBreak := false
			for ; i < len(b) && kinds[b[i]] == kindSpace; i++ {
				lineBreak = lineBreak || b[i] == '\n' || b[i] == '\r'
			}
			if lineBreak {
				continue
			}
		case kindQuote:
			end, _ := stringEnd(b, i+1)
			i = min(end+1, len(b))
		default:
			i++
		}
		n += copy(b[n:], b[from:i])
	}
	return n
}
