package corpus

import (
	"bytes"
	"time"

	"github.com/klauspost/compress/gzip"
)

// file is an envelope that is being filled.
type file struct {
	raw  []byte
	recs []Record
	from []int // where each record begins in raw
	to   []int
}

// begin starts a file with the envelope that CloudTrail writes: one line, no
// space, no line break at the end.
func begin() *file { return &file{raw: []byte(`{"Records":[`)} }

// add appends one record that appender makes.
func (f *file) add(appender func(dst []byte) ([]byte, Record)) {
	if len(f.recs) > 0 {
		f.raw = append(f.raw, ',')
	}
	at := len(f.raw)
	var r Record
	f.raw, r = appender(f.raw)
	r.Index = len(f.recs)
	f.from, f.to, f.recs = append(f.from, at), append(f.to, len(f.raw)), append(f.recs, r)
}

// fill appends n records of g's log type, most of them not in the order of
// their times.
func (f *file) fill(g *gen, n int, stamp time.Time) {
	for range n {
		at := g.eventTime(stamp)
		f.add(func(dst []byte) ([]byte, Record) { return g.record(dst, at) })
	}
}

// end closes the envelope and returns the file with its records, whose Raw
// lie in it. It is for compact files, where what stands there is what must
// arrive.
func (f *file) end() (raw []byte, recs []Record) {
	f.raw = append(f.raw, "]}"...)
	for i := range f.recs {
		f.recs[i].Raw = f.raw[f.from[i]:f.to[i]:f.to[i]]
	}
	return f.raw, f.recs
}

// packer compresses as CloudTrail does. It is owned by one goroutine.
type packer struct {
	buf bytes.Buffer
	zw  *gzip.Writer
}

// gz returns raw as one gzip member of the usual level.
func (p *packer) gz(raw []byte) []byte {
	p.buf.Reset()
	if p.zw == nil {
		p.zw, _ = gzip.NewWriterLevel(&p.buf, 6)
	} else {
		p.zw.Reset(&p.buf)
	}
	_, _ = p.zw.Write(raw) // a bytes.Buffer takes everything
	_ = p.zw.Close()
	return bytes.Clone(p.buf.Bytes())
}
