package s3test

import (
	"net/http"
	"strings"
	"time"
)

// Kind is what goes wrong with an answer.
type Kind int

// The kinds of fault. N is Fault.N.
const (
	// None: nothing goes wrong, but for Delay and Header.
	None Kind = iota
	// Answer: an S3 error with Status, Code and Message. Status 0 is 200: an
	// error inside a good answer.
	Answer
	// Raw: Status (0 = 200), Body and Header as they are: a portal's page.
	Raw
	// Cut: the connection ends after N bytes of the body, less than declared.
	Cut
	// Short: the body is N bytes long, and so says Content-Length.
	Short
	// Flip: one bit of byte N of the body is another.
	Flip
	// ResetBefore: the connection is reset before anything is answered.
	ResetBefore
	// ResetAfter: the connection is reset after N bytes of the body.
	ResetAfter
	// Stall: after N bytes of the body nothing comes any more.
	Stall
	// EndEarly: a page of a listing ends after N entries (at least one), with more to come.
	EndEarly
	// Repeat: a page of a listing forgets its continuation token and begins
	// again at the beginning.
	Repeat
)

// Fault is what goes wrong with one answer.
type Fault struct {
	Kind    Kind
	Delay   time.Duration     // before anything is answered
	Header  map[string]string // set on the answer, over its own
	N       int64             // what Kind says; past the end counts as the end
	Status  int
	Code    string
	Message string
	Body    string
}

// reply is the answer of the kinds that need no other.
func (f *Fault) reply(head bool) reply {
	if f.Kind == Answer {
		e := &apiError{f.Status, f.Code, f.Message, ""}
		out := e.reply(head)
		f.addHeader(out.header)
		return out
	}
	out := reply{status: f.Status, header: http.Header{}, body: []byte(f.Body), size: int64(len(f.Body))}
	if out.status == 0 {
		out.status = http.StatusOK
	}
	f.addHeader(out.header)
	return out
}

func (f *Fault) addHeader(h http.Header) {
	for name, value := range f.Header {
		h.Set(name, value)
	}
}

// apiError is an error as S3 answers it.
type apiError struct {
	status  int // 0 = 200
	code    string
	message string
	region  string // with AuthorizationHeaderMalformed: the right one
}

// reply is the error as an answer; HEAD has no body to tell the code in.
func (e *apiError) reply(head bool) reply {
	out := reply{status: e.status, header: http.Header{}}
	if e.status == 0 {
		out.status = http.StatusOK
	}
	out.header.Set("Content-Type", "application/xml")
	if head {
		return out
	}
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>")
	writeXML(&b, e.code)
	b.WriteString("</Code><Message>")
	writeXML(&b, e.message)
	b.WriteString("</Message>")
	if e.region != "" {
		b.WriteString("<Region>")
		writeXML(&b, e.region)
		b.WriteString("</Region>")
	}
	b.WriteString("<RequestId>0000000000000000</RequestId><HostId>s3test</HostId></Error>")
	out.body = []byte(b.String())
	return out
}
