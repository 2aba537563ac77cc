package render

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// member is one member of an object, as parts of the object's bytes.
type member struct {
	name  []byte // as written, with its quotes
	plain string // what the name means, escapes undone
	value []byte
	whole []byte // from the name's quote to the value's end
}

// kind is the value's kind: '{', '[', '"', '0', 't', 'f' or 'n'.
func (m *member) kind() jsontext.Kind { return jsontext.Value(m.value).Kind() }

// worker is memory that is used for one record after another. For one
// goroutine at a time.
type worker struct {
	dec  *jsontext.Decoder
	src  bytes.Buffer // over the bytes that dec reads
	opts []jsontext.Options

	top    []member // the record's members
	nested []member // those of the object within it that is being looked at
	buf    []byte   // what is put together aside
	text   []byte   // a string with its escapes undone
	cut    cutter
	used   map[string]bool // CEF's keys that are there: a second one of the same name would hide the first
}

func newWorker() *worker {
	w := &worker{
		used: map[string]bool{},
		// What the splitter lets pass: names that occur twice, and escapes of
		// half a surrogate pair.
		opts: []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)},
	}
	w.dec = jsontext.NewDecoder(&w.src, w.opts...)
	return w
}

// forget lets go of all that belongs to the record.
func (w *worker) forget() {
	clear(w.top)
	clear(w.nested)
	w.top, w.nested = w.top[:0], w.nested[:0]
	w.src = bytes.Buffer{}
	w.cut.forget()
	if cap(w.buf) > maxKept {
		w.buf = nil
	}
	if cap(w.text) > maxKept {
		w.text = nil
	}
	if cap(w.top) > 4096 {
		w.top = nil
	}
}

// members appends the members of the object in raw. The error says that raw is
// no object; it holds nothing of raw.
func (w *worker) members(to []member, raw []byte) ([]member, error) {
	w.src = *bytes.NewBuffer(raw[:len(raw):len(raw)])
	w.dec.Reset(&w.src, w.opts...)
	if w.dec.PeekKind() != '{' {
		return to, errNotObject
	}
	if _, err := w.dec.ReadToken(); err != nil {
		return to, errNotObject
	}
	for w.dec.PeekKind() != '}' {
		name, err := w.dec.ReadValue()
		if err != nil {
			return to, errNotObject
		}
		end := int(w.dec.InputOffset())
		m := member{name: raw[end-len(name) : end]}
		value, err := w.dec.ReadValue()
		if err != nil {
			return to, errNotObject
		}
		from := end - len(m.name)
		end = int(w.dec.InputOffset())
		m.value, m.whole = raw[end-len(value):end], raw[from:end]
		m.plain = plain(m.name)
		to = append(to, m)
	}
	return to, nil
}

// plain returns what a name means.
func plain(quoted []byte) string {
	text := inner(quoted)
	if bytes.IndexByte(text, '\\') < 0 {
		if s, ok := wellKnown[string(text)]; ok {
			return s // without allocating it anew
		}
		return string(text)
	}
	text, _ = jsontext.AppendUnquote(nil, quoted)
	return string(text)
}

// wellKnown are the names of the members that records have, each by itself.
var wellKnown = func() map[string]string {
	all := map[string]string{}
	for _, name := range []string{
		"eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress",
		"userAgent", "errorCode", "errorMessage", "requestParameters", "responseElements", "additionalEventData",
		"requestID", "eventID", "readOnly", "resources", "eventType", "apiVersion", "managementEvent",
		"recipientAccountId", "serviceEventDetails", "sharedEventID", "vpcEndpointId", "vpcEndpointAccountId",
		"eventCategory", "tlsDetails", "sessionCredentialFromConsole", "type", "principalId", "arn", "accountId",
		"accessKeyId", "userName", "sessionContext", "sessionIssuer", "attributes", "creationDate",
		"mfaAuthenticated", "webIdFederationData", "invokedBy", "ARN",
	} {
		all[name] = name
	}
	return all
}()

// inner returns what stands between the quotes of a JSON string.
func inner(quoted []byte) []byte { return quoted[1 : len(quoted)-1] }

// unquoted returns what a JSON string means; valid until the next call.
func (w *worker) unquoted(quoted []byte) []byte {
	if text := inner(quoted); bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	w.text, _ = jsontext.AppendUnquote(w.text[:0], quoted)
	return w.text
}

// appendQuoted appends s as a JSON string; what is no UTF-8 as U+FFFD.
func appendQuoted(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// unquote returns what a JSON string means. Half a surrogate pair is no error.
func unquote(quoted []byte) ([]byte, error) {
	if !jsontext.Value(quoted).IsValid(jsontext.AllowInvalidUTF8(true)) {
		return nil, errNotObject
	}
	text, _ := jsontext.AppendUnquote(nil, quoted)
	return text, nil
}

// elements returns the elements of the array in raw, as parts of it.
func (w *worker) elements(raw []byte) ([][]byte, bool) {
	w.src = *bytes.NewBuffer(raw[:len(raw):len(raw)])
	w.dec.Reset(&w.src, w.opts...)
	if w.dec.PeekKind() != '[' {
		return nil, false
	}
	if _, err := w.dec.ReadToken(); err != nil {
		return nil, false
	}
	var all [][]byte
	for w.dec.PeekKind() != ']' {
		value, err := w.dec.ReadValue()
		if err != nil {
			return nil, false
		}
		end := int(w.dec.InputOffset())
		all = append(all, raw[end-len(value):end])
	}
	return all, true
}
