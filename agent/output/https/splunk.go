package https

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// splunk is SplunkHEC: event objects one after the other ("Format events for
// HTTP Event Collector" in Splunk's documentation).
type splunk struct {
	host       string
	index      string // "" = the token's
	sourcetype string
	fields     map[string]string
	ack        bool
}

func (splunk) contentType() string { return "application/json" }
func (splunk) around() int         { return 400 }

func (l splunk) write(s *sheet, b *record.Batch) {
	var of *record.Object
	var head, tail []byte // what is the same for all records of an object
	for i := range b.Records {
		r := &b.Records[i]
		if r.Object != of {
			of = r.Object
			head, tail = l.head(head[:0], of), l.tail(tail[:0], of)
		}
		p, ok := s.value(i, r)
		if !ok {
			continue
		}
		s.edge = append(s.edge[:0], '{')
		if t := r.Time(); t.Unix() > 0 {
			s.edge = append(s.edge, `"time":`...)
			s.edge = strconv.AppendInt(s.edge, t.Unix(), 10)
			ms := t.Nanosecond() / 1e6
			s.edge = append(s.edge, '.', '0'+byte(ms/100), '0'+byte(ms/10%10), '0'+byte(ms%10), ',')
		}
		s.edge = append(s.edge, head...)
		s.put(s.edge)
		s.put(p)
		s.edge = append(s.edge[:0], tail...)
		s.edge = appendQuoted(s.edge, r.Identity())
		s.edge = append(s.edge, "}}\n"...)
		s.put(s.edge)
	}
}

// head appends what stands before the event, from the host on.
func (l splunk) head(dst []byte, o *record.Object) []byte {
	dst = append(dst, `"host":`...)
	dst = appendQuoted(dst, l.host)
	dst = append(dst, `,"source":`...)
	dst = appendQuoted(dst, "s3://"+o.Bucket+"/"+o.Key)
	if l.sourcetype != "" {
		dst = append(dst, `,"sourcetype":`...)
		dst = appendQuoted(dst, l.sourcetype)
	}
	if l.index != "" {
		dst = append(dst, `,"index":`...)
		dst = appendQuoted(dst, l.index)
	}
	return append(dst, `,"event":`...)
}

// tail appends what stands behind the event, up to the record's identity. A
// field that is configured wins over a label of the same name, and our own over
// both.
func (l splunk) tail(dst []byte, o *record.Object) []byte {
	fields := make(map[string]string, len(l.fields)+len(o.Labels)+1)
	maps.Copy(fields, o.Labels)
	maps.Copy(fields, l.fields)
	if o.AccountName != "" {
		fields["account_name"] = o.AccountName
	}
	delete(fields, "record_id")
	dst = append(dst, `,"fields":{`...)
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		dst = appendQuoted(dst, k)
		dst = append(dst, ':')
		dst = appendQuoted(dst, fields[k])
		dst = append(dst, ',')
	}
	return append(dst, `"record_id":`...)
}

// hecAnswer is the body of HEC's answers.
type hecAnswer struct {
	Text string `json:"text"`
	Code int    `json:"code"`
	Ack  *int64 `json:"ackId"`
}

// hecCodes are the codes that mean something else than their status does
// ("Troubleshoot HTTP Event Collector", possible error codes).
var hecCodes = map[int]answer{
	1:  {kind: fault.Held, hint: "the HEC token is disabled: enable it in Splunk"},
	4:  {kind: fault.Held, hint: "Splunk doesn't know the HEC token: check token"},
	7:  {kind: fault.Held, hint: "Splunk doesn't know the index, or the token may not write to it: check index and the token's allowed indexes"},
	10: {kind: fault.Held, hint: "the token wants indexer acknowledgement: set ack = true, or turn it off for the token"},
	11: {kind: fault.Held, hint: "Splunk refuses the channel: check that url leads to HEC"},
	14: {kind: fault.Held, hint: "the token has no indexer acknowledgement: set ack = false, or turn it on for the token"},
	16: {kind: fault.Held, hint: "set token, and leave it out of url"},
}

func (splunk) refusal(status int, text []byte) (answer, bool) {
	if status/100 == 2 || status/100 == 5 { // 5xx pass by themselves, whatever the code
		return answer{}, false
	}
	var said hecAnswer
	if json.Unmarshal(text, &said) != nil {
		return answer{}, false
	}
	a, ok := hecCodes[said.Code]
	return a, ok
}

// taken: without acknowledgement the status counts, and with it the id.
func (l splunk) taken(resp *http.Response, _ int) outcome {
	if !l.ack {
		return outcome{}
	}
	var said hecAnswer
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return outcome{err: &fault.Error{Err: unreadable(err)}}
	case json.Unmarshal(bytes.TrimSpace(text), &said) != nil || said.Ack == nil:
		return outcome{err: &fault.Error{
			Kind: fault.Held, Err: errNoAckID,
			Hint: "set ack = false, or turn indexer acknowledgement on for the token",
		}}
	}
	return outcome{ack: said.Ack}
}
