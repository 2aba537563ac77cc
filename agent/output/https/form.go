package https

import (
	"bytes"
	"io"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Format is how a batch is laid out in a request's body.
type Format string

// The formats.
const (
	NDJSON      Format = "ndjson"       // each record, a line feed after each, also after the last
	JSONArray   Format = "json-array"   // the records in brackets, commas between
	SplunkHEC   Format = "splunk-hec"   // Splunk's HTTP event collector: one event object a record
	ElasticBulk Format = "elastic-bulk" // Elasticsearch's and OpenSearch's _bulk: create, then the record
	OTLP        Format = "otlp"         // OpenTelemetry's logs, protobuf (opentelemetry-proto, OTLP/HTTP)
)

// Renderer makes the form in which a record is sent. It is safe for concurrent
// use.
type Renderer interface {
	// Append appends the record's form, which holds no line break, to dst, at
	// most max bytes of it (0 = any number). Its error says why the record has
	// no such form; it holds no part of the record.
	Append(dst []byte, r *record.Record, max int) ([]byte, error)
}

// layout is what differs from format to format. A layout has no state of its
// own: Send is called by many goroutines at once.
type layout interface {
	// contentType is the header of that name.
	contentType() string
	// around is about how many bytes stand around each record.
	around() int
	// write writes a body. Records that the sheet has no form for are left out.
	write(s *sheet, b *record.Batch)
	// refusal says what a status means where the format knows better than
	// classify; text is the answer's body, or how it begins.
	refusal(status int, text []byte) (answer, bool)
	// taken reads the answer to a request with n records whose status was 2xx.
	taken(resp *http.Response, n int) outcome
}

// outcome is what an answer of status 2xx says.
type outcome struct {
	// err: nothing is known to have been taken, or not all; its kind says what
	// to do. The Op and the redaction of texts are added by the Output.
	err *fault.Error
	// refused are the records that were not taken, though all others were,
	// by their numbers among those that were sent.
	refused []fault.RecordRefusal
	// ack is the id to ask an acknowledgement for; nil if there is none.
	ack *int64
}

// form is a format, with the form of each record in it.
type form struct {
	layout layout
	render Renderer // nil = the records as they are
	text   bool     // what render makes is text and no JSON

	sheets chan *sheet // idle ones: their scratch memory is kept
}

func newForm(l layout, render Renderer, text bool, conns int) *form {
	return &form{layout: l, render: render, text: text && render != nil, sheets: make(chan *sheet, conns)}
}

// sheet is what a layout writes a body on.
type sheet struct {
	form    *form
	w       io.Writer
	err     error // of w, after which nothing is written
	refused []fault.RecordRefusal

	now    []byte // one record, as it is rendered
	quoted []byte // the same in quotes
	edge   []byte // what stands around it
	wire   protoScratch
}

func (f *form) sheet(w io.Writer) *sheet {
	var s *sheet
	select {
	case s = <-f.sheets:
	default:
		s = &sheet{form: f}
	}
	s.w, s.err, s.refused = w, nil, nil
	return s
}

// maxScratch is how much scratch memory a sheet keeps for the next body: a
// batch of usual records fits, and a single huge one is not remembered.
const maxScratch = 256 << 10

// write writes a body and returns the records that have no form, ascending.
func (f *form) write(w io.Writer, b *record.Batch) ([]fault.RecordRefusal, error) {
	s := f.sheet(w)
	f.layout.write(s, b)
	refused, err := s.refused, s.err // s is another's from done on
	f.done(s)
	return refused, err
}

func (f *form) done(s *sheet) {
	s.w, s.refused = nil, nil
	for _, p := range []*[]byte{&s.now, &s.quoted, &s.edge, &s.wire.arena} {
		if cap(*p) > maxScratch {
			*p = nil
		}
	}
	if clear(s.wire.records[:cap(s.wire.records)]); cap(s.wire.records) > maxScratch/100 { // they point at the batch's records
		s.wire.records = nil
	}
	select {
	case f.sheets <- s:
	default:
	}
}

func (s *sheet) put(p []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
}

// refuse leaves out record i.
func (s *sheet) refuse(i int, why string) {
	s.refused = append(s.refused, fault.RecordRefusal{Index: i, Answer: why, Unsent: true})
}

// of returns the form of record i, valid until the next call, or false if there
// is none, which is noted.
func (s *sheet) of(i int, r *record.Record) ([]byte, bool) {
	p := r.Raw
	if s.form.render != nil {
		var err error
		if s.now, err = s.form.render.Append(s.now[:0], r, 0); err != nil {
			s.refuse(i, err.Error())
			return nil, false
		}
		p = s.now
	}
	if bytes.IndexByte(p, '\n') >= 0 {
		s.refuse(i, "holds a line break")
		return nil, false
	}
	return p, true
}

// value is of, as a JSON value: text is put into quotes.
func (s *sheet) value(i int, r *record.Record) ([]byte, bool) {
	p, ok := s.of(i, r)
	if ok && s.form.text {
		s.quoted = appendQuoted(s.quoted[:0], p)
		p = s.quoted
	}
	return p, ok
}

// appendQuoted appends s as a JSON string; bytes that are not UTF-8 become
// U+FFFD.
func appendQuoted[T []byte | string](dst []byte, s T) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error says that there was such a byte
	return dst
}

// lines is NDJSON, and JSONArray with other signs.
type lines struct {
	kind                   string
	before, between, after []byte
	array                  bool
}

func ndjson(text bool) lines {
	kind := "application/x-ndjson"
	if text {
		kind = "text/plain; charset=utf-8"
	}
	return lines{kind: kind, between: []byte("\n"), after: []byte("\n")}
}

func jsonArray() lines {
	return lines{kind: "application/json", before: []byte("["), between: []byte(","), after: []byte("]"), array: true}
}

func (l lines) contentType() string { return l.kind }
func (lines) around() int           { return 1 }

func (l lines) write(s *sheet, b *record.Batch) {
	s.put(l.before)
	n := 0
	for i := range b.Records {
		take := s.of
		if l.array {
			take = s.value
		}
		p, ok := take(i, &b.Records[i])
		if !ok {
			continue
		}
		if n > 0 {
			s.put(l.between)
		}
		s.put(p)
		n++
	}
	s.put(l.after)
}

func (lines) refusal(int, []byte) (answer, bool) { return answer{}, false }

// taken: the status alone counts.
func (lines) taken(*http.Response, int) outcome { return outcome{} }
