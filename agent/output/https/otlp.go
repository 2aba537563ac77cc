package https

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// otlp is OTLP: an ExportLogsServiceRequest (opentelemetry-proto,
// collector/logs/v1/logs_service.proto and logs/v1/logs.proto). It is written
// field by field: the records' bytes go from the batch to the body without a
// message tree between, which would hold each of them once more. The tests read
// it with the published messages.
type otlp struct {
	fields  map[string]string
	version string
	now     func() time.Time
}

// Field numbers of the messages named.
const (
	requestResourceLogs protowire.Number = 1

	resourceLogsResource protowire.Number = 1
	resourceLogsScope    protowire.Number = 2
	resourceAttributes   protowire.Number = 1

	scopeLogsScope   protowire.Number = 1
	scopeLogsRecords protowire.Number = 2
	scopeName        protowire.Number = 1
	scopeVersion     protowire.Number = 2

	logTime       protowire.Number = 1
	logBody       protowire.Number = 5
	logAttributes protowire.Number = 6
	logObserved   protowire.Number = 11

	keyValueKey   protowire.Number = 1
	keyValueValue protowire.Number = 2
	anyString     protowire.Number = 1

	responsePartial protowire.Number = 1
	partialRejected protowire.Number = 1
	partialMessage  protowire.Number = 2
)

// protoScratch is what is reused from body to body. A message's length stands
// before it, so that all is measured before the first byte is written.
type protoScratch struct {
	arena   []byte // attributes and rendered records, one after the other
	records []protoRecord
}

// protoRecord is a LogRecord that is still to be written.
type protoRecord struct {
	object     *record.Object
	time       uint64
	from, to   int    // what it is in S3, in the arena: shared by the records of an object
	id, idEnd  int    // its identity, in the arena
	body       []byte // the record as it is; nil if it was rendered
	start, end int    // the rendered record, in the arena
	size       int    // of the LogRecord
}

func (otlp) contentType() string { return "application/x-protobuf" }
func (otlp) around() int         { return 300 }

func (l otlp) write(s *sheet, b *record.Batch) {
	scope := l.scope(nil)
	observed := unixNano(l.now())
	w := &s.wire
	w.arena, w.records = w.arena[:0], w.records[:0]
	for i := range b.Records {
		r := &b.Records[i]
		p, ok := s.of(i, r)
		if !ok {
			continue
		}
		x := protoRecord{object: r.Object, time: unixNano(r.Time())}
		if n := len(w.records); n > 0 && w.records[n-1].object == r.Object {
			x.from, x.to = w.records[n-1].from, w.records[n-1].to
		} else {
			x.from = len(w.arena)
			w.arena = appendAttribute(w.arena, logAttributes, "aws.s3.bucket", r.Object.Bucket)
			w.arena = appendAttribute(w.arena, logAttributes, "aws.s3.key", r.Object.Key)
			x.to = len(w.arena)
		}
		length := len(p)
		if s.form.render == nil {
			x.body = p
		} else {
			x.start = len(w.arena)
			w.arena = append(w.arena, p...)
			x.end = len(w.arena)
		}
		x.id = len(w.arena)
		w.arena = appendAttribute(w.arena, logAttributes, "log.record.uid", r.Identity())
		x.idEnd = len(w.arena)
		x.size = 2*(1+8) + protowire.SizeTag(logBody) + protowire.SizeBytes(sizeString(length)) + x.idEnd - x.id + x.to - x.from
		w.records = append(w.records, x)
	}
	for rest := w.records; len(rest) > 0; {
		n := 1
		for n < len(rest) && sameResource(rest[0].object, rest[n].object) {
			n++
		}
		l.resource(s, scope, observed, rest[:n])
		rest = rest[n:]
	}
}

// sizeString is the size of an AnyValue that holds a string of n bytes.
func sizeString(n int) int { return protowire.SizeTag(anyString) + protowire.SizeBytes(n) }

// resource writes a ResourceLogs.
func (l otlp) resource(s *sheet, scope []byte, observed uint64, records []protoRecord) {
	res := l.attributes(nil, records[0].object)
	inner := protowire.SizeTag(scopeLogsScope) + protowire.SizeBytes(len(scope))
	for i := range records {
		inner += protowire.SizeTag(scopeLogsRecords) + protowire.SizeBytes(records[i].size)
	}
	outer := protowire.SizeTag(resourceLogsResource) + protowire.SizeBytes(len(res)) +
		protowire.SizeTag(resourceLogsScope) + protowire.SizeBytes(inner)
	s.edge = appendLength(s.edge[:0], requestResourceLogs, outer)
	s.edge = appendLength(s.edge, resourceLogsResource, len(res))
	s.edge = append(s.edge, res...)
	s.edge = appendLength(s.edge, resourceLogsScope, inner)
	s.edge = appendLength(s.edge, scopeLogsScope, len(scope))
	s.edge = append(s.edge, scope...)
	s.put(s.edge)
	for i := range records {
		x := &records[i]
		body := x.body
		if body == nil {
			body = s.wire.arena[x.start:x.end]
		}
		s.edge = appendLength(s.edge[:0], scopeLogsRecords, x.size)
		s.edge = protowire.AppendTag(s.edge, logTime, protowire.Fixed64Type)
		s.edge = protowire.AppendFixed64(s.edge, x.time)
		s.edge = protowire.AppendTag(s.edge, logObserved, protowire.Fixed64Type)
		s.edge = protowire.AppendFixed64(s.edge, observed)
		s.edge = appendLength(s.edge, logBody, sizeString(len(body)))
		s.edge = appendLength(s.edge, anyString, len(body))
		s.put(s.edge)
		s.put(body)
		s.put(s.wire.arena[x.id:x.idEnd])
		s.put(s.wire.arena[x.from:x.to])
	}
}

// sameResource reports whether the records of two objects have the same
// resource.
func sameResource(a, b *record.Object) bool {
	return a == b || a.Source == b.Source && a.Account == b.Account && a.AccountName == b.AccountName &&
		a.Organization == b.Organization && a.Region == b.Region && a.LogType == b.LogType && maps.Equal(a.Labels, b.Labels)
}

// attributes appends a Resource: names from OpenTelemetry's semantic
// conventions where there are any. A field that is configured wins over a label
// of the same name, and both over ours.
func (l otlp) attributes(dst []byte, o *record.Object) []byte {
	all := map[string]string{
		"service.name":           "cloudtrail",
		"cloud.provider":         "aws",
		"cloud.account.id":       o.Account,
		"cloud.region":           o.Region,
		"trailpoll.source":       o.Source,
		"trailpoll.log_type":     o.LogType,
		"trailpoll.organization": o.Organization,
		"trailpoll.account_name": o.AccountName,
	}
	maps.Copy(all, o.Labels)
	maps.Copy(all, l.fields)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if all[k] != "" {
			dst = appendAttribute(dst, resourceAttributes, k, all[k])
		}
	}
	return dst
}

// scope appends an InstrumentationScope.
func (l otlp) scope(dst []byte) []byte {
	dst = protowire.AppendTag(dst, scopeName, protowire.BytesType)
	dst = protowire.AppendString(dst, "trailpoll")
	if l.version != "" {
		dst = protowire.AppendTag(dst, scopeVersion, protowire.BytesType)
		dst = protowire.AppendString(dst, l.version)
	}
	return dst
}

// appendLength appends a tag and the length of what follows it.
func appendLength(dst []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.BytesType), uint64(n))
}

// appendAttribute appends a KeyValue with a string. Strings are UTF-8 in
// protobuf, and a receiver refuses a whole request for one that is not.
func appendAttribute(dst []byte, field protowire.Number, key, value string) []byte {
	key, value = strings.ToValidUTF8(key, "\ufffd"), strings.ToValidUTF8(value, "\ufffd")
	inner := sizeString(len(value))
	dst = appendLength(dst, field, protowire.SizeTag(keyValueKey)+protowire.SizeBytes(len(key))+
		protowire.SizeTag(keyValueValue)+protowire.SizeBytes(inner))
	dst = protowire.AppendTag(dst, keyValueKey, protowire.BytesType)
	dst = protowire.AppendString(dst, key)
	dst = appendLength(dst, keyValueValue, inner)
	dst = protowire.AppendTag(dst, anyString, protowire.BytesType)
	return protowire.AppendString(dst, value)
}

// unixNano is a time as OTLP has it, 0 for one that it can't say.
func unixNano(t time.Time) uint64 {
	if y := t.Year(); y < 1970 || y > 2261 { // what an int64 of nanoseconds holds
		return 0
	}
	return uint64(max(t.UnixNano(), 0))
}

// refusal: of the 5xx only 502, 503 and 504 pass by themselves
// (opentelemetry-proto, OTLP/HTTP response, "Retryable Response Codes"), and a
// collector answers 500 to what its pipeline refuses for good. To try such a
// batch for ever would have one record stop the output. But others answer 500
// while they are down, old collectors among them, so that it is not taken at its
// word either: a record is parked only where others are taken and it is refused
// again and again, and nothing is while everything is answered so.
func (otlp) refusal(status int, _ []byte) (answer, bool) {
	if status == http.StatusInternalServerError {
		return answer{kind: fault.Refused, unsure: true}, true
	}
	return answer{}, false
}

// taken reads what was taken in part. The receiver says how many records it
// rejected and not which, so that they are found by halves: what it took comes
// again with that.
func (otlp) taken(resp *http.Response, _ int) outcome {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return outcome{err: &fault.Error{Err: unreadable(err)}}
	}
	rejected, message, err := partialSuccess(resp.Header.Get("Content-Type"), text)
	switch {
	case err != nil:
		return outcome{err: &fault.Error{Kind: fault.Held, Err: err, Hint: "check that url leads to an OTLP receiver's /v1/logs"}}
	case rejected > 0:
		return outcome{err: &fault.Error{Kind: fault.Refused, Err: fmt.Errorf("the receiver rejected %d records: %s", rejected, message)}}
	}
	return outcome{} // a message alone is a warning
}

var errNoOTLP = errors.New("the answer is not that of an OTLP receiver")

// partialSuccess reads an ExportLogsServiceResponse, in protobuf or in JSON.
// Anything else that comes with a 2xx, most often nothing, is success.
func partialSuccess(contentType string, text []byte) (rejected int64, message string, err error) {
	kind, _, _ := mime.ParseMediaType(contentType)
	switch kind {
	case "application/x-protobuf":
		err = eachField(text, func(field protowire.Number, value []byte, _ uint64) error {
			if field != responsePartial {
				return nil
			}
			return eachField(value, func(field protowire.Number, value []byte, number uint64) error {
				switch field {
				case partialRejected:
					rejected = int64(number)
				case partialMessage:
					message = string(value)
				}
				return nil
			})
		})
	case "application/json":
		var said struct {
			Partial struct {
				Rejected json.Number `json:"rejectedLogRecords"`
				Message  string      `json:"errorMessage"`
			} `json:"partialSuccess"`
		}
		if len(text) == 0 {
			return 0, "", nil
		}
		if json.Unmarshal(text, &said) != nil {
			return 0, "", errNoOTLP
		}
		rejected, _ = said.Partial.Rejected.Int64() // "" = none
		message = said.Partial.Message
	}
	return rejected, message, err
}

// eachField calls yield for the fields of a message that are bytes or a varint.
func eachField(text []byte, yield func(field protowire.Number, value []byte, number uint64) error) error {
	for len(text) > 0 {
		field, kind, n := protowire.ConsumeTag(text)
		if n < 0 {
			return errNoOTLP
		}
		text = text[n:]
		var value []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(text)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(text)
		default:
			n = protowire.ConsumeFieldValue(field, kind, text)
		}
		if n < 0 {
			return errNoOTLP
		}
		if err := yield(field, value, number); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}
