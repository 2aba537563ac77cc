package cloudtrail

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/record"
)

const (
	bombFloor  = 16 << 20 // bytes that any object may inflate to
	bombFactor = 200      // times its stored size that it may inflate to beyond
	inputSize  = 32 << 10 // bytes read from a body at once
	leastBuf   = 4 << 10  // bytes that Inflate begins with at least
	usualRatio = 8        // inflated to stored size, of an ordinary object
)

// Limits bound what an object may come to. They are in bytes.
type Limits struct {
	MaxRecord int   // most of one record
	Hold      int   // most of an object that Inflate holds
	Stored    int64 // the object's size as stored; 0 or less if unknown
	Expect    int   // a guess at its size inflated, to begin with; 0 = 8 × Stored
}

// most returns how many bytes the object may inflate to: 16 MiB, and beyond
// that 200 times its stored size. Real objects stay under 20 times; deflate
// ends at about 1,000.
func (l Limits) most() int64 { return max(bombFloor, bombFactor*l.Stored) }

// first returns with how many bytes Inflate begins.
func (l Limits) first() int {
	n := int64(l.Expect)
	if n <= 0 {
		n = usualRatio * l.Stored
	}
	return int(min(max(n, leastBuf), int64(l.Hold)))
}

// Inflater inflates objects and proves that each is exactly one gzip member
// (RFC 1952) whose length and CRC are right, with nothing behind it. A second
// member counts as damage and is not read as more data: the log's digest would
// not cover it.
//
// What it finds wrong is an *Error with the reason Corrupt, Truncated,
// TrailingData or Bomb. Which of them a damaged object shows is not always
// certain: a flipped bit may make it look cut. An error of the body that is
// read, io.ErrUnexpectedEOF included, says nothing about the object; it is
// returned as it is, and in preference.
//
// The zero Inflater is ready. It is used again object after object to keep its
// memory (about 80 KiB), and is for one goroutine at a time.
type Inflater struct {
	body  body
	in    *bufio.Reader
	gzip  *gzip.Reader
	most  int64 // bytes that may be inflated
	size  int64 // bytes inflated
	begun bool
	done  bool  // all of it is inflated and proven
	err   error // io.EOF with done

	probe [1]byte
	walk  Splitter // to say at which record a fault showed
	proof proof    // of the object that was last too large to hold
}

// body remembers with what error a body ended.
type body struct {
	r    io.Reader
	idle int   // reads in a row that gave nothing
	err  error // nil at a true end
}

// Read reads on. It gives up a reader that gives neither bytes nor an end:
// others would ask it forever.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if n > 0 {
		b.idle = 0
	} else if b.idle++; b.idle == maxIdle && err == nil {
		err = io.ErrNoProgress
	}
	if err != io.EOF {
		b.err = err
	}
	return n, err
}

// Reset prepares to inflate r by Read. It does not read yet.
func (f *Inflater) Reset(r io.Reader, lim Limits) {
	f.body = body{r: r}
	if f.in == nil {
		f.in = bufio.NewReaderSize(&f.body, inputSize)
		f.gzip = new(gzip.Reader)
	} else {
		f.in.Reset(&f.body)
	}
	f.most, f.size, f.begun, f.done, f.err = lim.most(), 0, false, false, nil
	f.proof.taking = false
}

// Read inflates into p. What it returns before io.EOF is not yet proven.
func (f *Inflater) Read(p []byte) (int, error) {
	if f.err != nil || len(p) == 0 {
		return 0, f.err
	}
	if !f.begun {
		f.begun = true
		if f.err = f.begin(); f.err != nil {
			return 0, f.err
		}
	}
	n, err := f.gzip.Read(p)
	f.size += int64(n)
	if f.proof.taking {
		f.proof.take(p[:n])
	}
	switch {
	case f.size > f.most:
		f.err = f.fault(record.Bomb, bomb)
	case err == io.EOF: //nolint:errorlint // gzip.Reader keeps io.Reader's contract
		if f.err = f.end(); f.err == nil {
			f.done, f.err = true, io.EOF
		}
	case err != nil:
		f.err = f.classify(err)
	}
	return n, f.err
}

// Inflate inflates the whole of r into dst, from its start, and returns it
// when it is proven. dst is enlarged as needed, by doubling, up to lim.Hold
// bytes; the caller uses what it returns again for the next object. With an
// error nothing of the object is returned.
//
// An object that is larger is read to its end all the same: ErrHold means that
// it is proven, too, and need only be walked, in a second reading with Again.
func (f *Inflater) Inflate(dst []byte, r io.Reader, lim Limits) ([]byte, error) {
	f.Reset(r, lim)
	defer f.drop()
	lim.Hold = max(lim.Hold, 0)
	dst = dst[:0]
	if cap(dst) == 0 {
		dst = make([]byte, 0, lim.first())
	}
	for {
		var n int
		room := dst[len(dst):min(cap(dst), lim.Hold)]
		if len(room) > 0 {
			n, _ = f.Read(room)
			dst = dst[:len(dst)+n]
		} else {
			// Full, which may well be all: don't enlarge it for nothing.
			n, _ = f.Read(f.probe[:])
			if n > 0 && len(dst) >= lim.Hold {
				f.proof.begin()
				f.proof.take(dst)
				f.proof.take(f.probe[:])
				f.walk.ResetReader(io.MultiReader(bytes.NewReader(dst), bytes.NewReader(f.probe[:]), f), lim.MaxRecord)
				if err := f.drain(); err != nil {
					return dst[:0], err
				}
				return dst[:0], ErrHold
			}
			if n > 0 {
				dst = append(make([]byte, 0, min(2*cap(dst), lim.Hold)), dst...)
				dst = append(dst, f.probe[0])
			}
		}
		switch {
		case f.done:
			return dst, nil
		case f.err != nil:
			f.walk.Reset(dst, lim.MaxRecord)
			return dst[:0], f.drain()
		}
	}
}

// Verify proves r in little memory, without keeping it, and returns how many
// bytes it inflates to. It says nothing about the JSON inside.
func (f *Inflater) Verify(r io.Reader, lim Limits) (int64, error) {
	f.Reset(r, lim)
	defer f.drop()
	f.walk.ResetReader(f, lim.MaxRecord)
	err := f.drain()
	return f.size, err
}

// drain reads to the end and returns what is wrong, if anything, with the
// number of the record at which walk stood by then. What walk thinks of the
// records is for another time.
func (f *Inflater) drain() error {
	for {
		if _, err := f.walk.Next(); err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || !e.RecordOnly {
				break
			}
		}
	}
	_, _ = io.Copy(io.Discard, f)
	if f.done {
		return nil
	}
	return atRecord(f.err, f.walk.Records())
}

// drop lets go of what belongs to the caller.
func (f *Inflater) drop() {
	f.body.r = nil
	f.walk.Reset(nil, 0)
}

// gzipMagic begins a gzip member that holds deflate (RFC 1952, section 2.3).
const gzipMagic = "\x1f\x8b\x08"

// begin reads the header.
func (f *Inflater) begin() error {
	head, _ := f.in.Peek(len(gzipMagic))
	switch {
	case f.body.err != nil:
		return f.body.err
	case len(head) == 0:
		return f.fault(record.Truncated, nothing)
	case !strings.HasPrefix(gzipMagic, string(head)):
		head, _ = f.in.Peek(64)
		head = bytes.TrimLeft(head, " \t\r\n")
		if len(head) > 0 && (head[0] == '{' || head[0] == '[') {
			return f.fault(record.Corrupt, plainJSON)
		}
		return f.fault(record.Corrupt, notGzip)
	}
	if err := f.gzip.Reset(f.in); err != nil {
		return f.classify(err)
	}
	f.gzip.Multistream(false)
	return nil
}

// end checks that nothing follows the member, whose length and CRC are right.
func (f *Inflater) end() error {
	_, err := f.in.ReadByte()
	switch {
	case f.body.err != nil:
		return f.body.err
	case err == nil:
		return f.fault(record.TrailingData, behindMember)
	}
	return nil
}

// classify says what an error of the gzip reader means.
func (f *Inflater) classify(err error) error {
	switch {
	case f.body.err != nil:
		return f.body.err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return f.fault(record.Truncated, cutOff)
	case errors.Is(err, gzip.ErrChecksum):
		return f.fault(record.Corrupt, checksum)
	}
	return f.fault(record.Corrupt, damaged)
}

// fault returns the error for an object that is damaged.
func (f *Inflater) fault(reason record.Reason, bad flaw) error {
	return &Error{Reason: reason, Record: -1, Offset: f.size, Err: bad}
}
