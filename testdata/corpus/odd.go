package corpus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// MaxRecord is the longest record that is delivered when nothing else is
// configured.
const MaxRecord = 1 << 20

// Odd returns objects that are unusual and whole: each real log files have
// shown, or CloudTrail's documentation allows. Every record must be delivered.
// Object.Name says which case it is. The stamps are near at; the streams are
// those of account 111122223333 in us-east-1, but where the case is about that.
func (c *Corpus) Odd(l Layout, at time.Time) iter.Seq[Object] {
	return func(yield func(Object) bool) {
		k := &kit{g: c.gen("odd "+l.Name, int(at.Unix())), l: l, stamp: at.UTC().Truncate(slot), yield: yield}
		k.literals()
		k.escapes()
		k.names()
		k.shapes()
		k.envelopes()
		k.gzips()
		k.sizes()
		k.twins()
		k.places()
	}
}

// kit makes objects for odd and bad cases, one after the other.
type kit struct {
	packer
	g       *gen
	l       Layout
	stamp   time.Time
	yield   func(Object) bool
	stopped bool
}

// object begins an object five minutes after the one before.
func (k *kit) object(name string) Object {
	k.stamp = k.stamp.Add(slot)
	o := k.g.object(k.l, k.stamp)
	o.Name = name
	return o
}

// give yields o with raw as its content.
func (k *kit) give(o Object, raw []byte, recs []Record) {
	o.Body, o.Records = k.gz(raw), recs
	k.send(o)
}

func (k *kit) send(o Object) {
	if !k.stopped {
		k.stopped = !k.yield(o)
	}
}

// texts yields one compact object that holds these records, with an ordinary
// one before and after them. Each text is expanded.
func (k *kit) texts(name string, texts ...string) {
	o := k.object(name)
	f := begin()
	f.fill(k.g, 1, k.stamp)
	for _, text := range texts {
		f.add(func(dst []byte) ([]byte, Record) { return k.literal(dst, text) })
	}
	f.fill(k.g, 1, k.stamp)
	raw, recs := f.end()
	k.give(o, raw, recs)
}

// literal appends an expanded text as a record. The id and the time that the
// text announces by `"eventID":"` and `"eventTime":"` are found at their first
// places, so a text that hides decoys names them first.
func (k *kit) literal(dst []byte, text string) ([]byte, Record) {
	at := len(dst)
	dst = k.g.expand(dst, text)
	raw := string(dst[at:])
	r := Record{EventTime: between(raw, `"eventTime":"`), EventID: between(raw, `"eventID":"`)}
	if r.EventID == "" {
		r.EventID = between(raw, `"eventId":"`)
	}
	return dst, r
}

// between returns what stands between the first mark and the quote after it.
func between(s, mark string) string {
	_, s, found := strings.Cut(s, mark)
	if !found {
		return ""
	}
	s, _, _ = strings.Cut(s, `"`)
	return s
}

// head begins a record of a fixed shape, up to where its oddity comes.
const head = `{"eventVersion":"1.11","eventTime":"2026-11-03T22:04:05Z","eventID":"<uuid>","eventSource":"ec2.amazonaws.com","eventName":"DescribeInstances","awsRegion":"<region>"`

func (k *kit) literals() {
	k.texts("number literals",
		head+`,"additionalEventData":{"bytesTransferredIn":0.0,"bytesTransferredOut":243.0}}`,
		head+`,"requestParameters":{"FromTime":1.688560107857E9,"ToTime":1.688563707857E+9}}`,
		head+`,"insightDetails":{"average":9.82222E-5,"insight":70.0,"zero":-0,"e":0e0}}`,
		head+`,"requestParameters":{"id":9007199254740993,"huge":123456789012345678901234567890,"over":1e400,"fine":0.12345678901234567890}}`)
}

func (k *kit) escapes() {
	k.texts("escapes",
		head+`,"userAgent":"a\u003db\u0026c\u003cd\u003Ee"}`,
		head+`,"requestParameters":{"from":"Nov 3, 2026, 4:11:47\u202fPM","to":"Nov 3, 2026, 4:11:47`+"\u202f"+`PM"}}`,
		head+`,"errorMessage":"a raw ’ and \u2019, 😀 and \ud83d\ude00, \/ and /, \\ and \" and \u0000 and \u001F"}`,
		head+`,"errorMessage":"line\nbreak\r\nin\tescapes, `+"\u2028\u2029\u0085"+` raw"}`,
		head+`,"errorMessage":"half a pair: \ud800"}`,
		head+`,"requestParameters":{"text":"}],\"Records\":[{\"eventID\":\"decoy\"}","text2":"{[\\"}}`,
		head+`,"":{"":""},"requestParameters":[[],{},[[{}]],"",null,true,false]}`)
}

func (k *kit) names() {
	k.texts("member names",
		head+`,"requestParameters":{"Tag":{"tag":1,"Tag":2,"TAG":3}}}`,
		head+`,"requestID":"first","requestID":"second","requestParameters":{"a":1,"a":2}}`,
		head+`,"eventID":"a-second-event-id","eventTime":"1999-01-01T00:00:00Z"}`,
		head+`,"EventID":"decoy","eventid":"decoy","requestParameters":{"eventID":"decoy","eventTime":"decoy"},"Records":[{"eventID":"decoy"}]}`)
	o := k.object("a nested event id first")
	f := begin()
	for _, r := range []struct{ text, id, at string }{
		{`{"requestParameters":{"eventID":"nested","eventTime":"nested"},"eventTime":"2026-11-03T22:04:05Z","eventID":"the-true-one"}`, "the-true-one", "2026-11-03T22:04:05Z"},
		{`{"note":"\"eventID\":\"in a string\"","eventID":"the-true-two"}`, "the-true-two", ""},
		{`{"eventId":"spelt-otherwise","eventID":"the-true-three"}`, "the-true-three", ""},
		{`{"eventId":"spelt-otherwise"}`, "spelt-otherwise", ""},
		{`{"eventID":17,"eventTime":null}`, "", ""},
		{`{"eventID":"with \u0022 an escape"}`, `with \u0022 an escape`, ""},
		{`{}`, "", ""},
	} {
		f.add(func(dst []byte) ([]byte, Record) {
			return append(dst, r.text...), Record{EventID: r.id, EventTime: r.at}
		})
	}
	raw, recs := f.end()
	k.give(o, raw, recs)
}

func (k *kit) shapes() {
	g := k.g
	for _, g.logType = range LogTypes() {
		o := k.object("log type " + g.logType)
		f := begin()
		f.fill(g, 3, k.stamp)
		raw, recs := f.end()
		k.give(o, raw, recs)
	}
	g.logType = CloudTrail
	o := k.object("service events")
	f := begin()
	for range 3 {
		f.add(func(dst []byte) ([]byte, Record) { return g.serviceEvent(dst, k.stamp) })
	}
	raw, recs := f.end()
	k.give(o, raw, recs)
	k.texts("members of other types",
		head+`,"requestParameters":"a string","responseElements":["a","list"],"disableApiTermination":{"value":true}}`,
		head+`,"recipientAccountId":"444455556666","sharedEventID":"<uuid>","addendum":{"reason":"DELIVERY_DELAY"}}`,
		head+`,"vpcEndpointId":"vpce-0<hex17>","eventContext":{"tagContext":{"principalTags":[]}},"eventCategory":"Data"}`)
	k.texts("deep nesting", head+`,"requestParameters":`+strings.Repeat(`{"a":[`, 200)+strings.Repeat(`]}`, 200)+`}`)
}

func (k *kit) envelopes() {
	// whole makes an object from the compact records of a file, put together
	// by join.
	whole := func(name string, n int, join func(recs [][]byte) []byte) {
		o := k.object(name)
		f := begin()
		f.fill(k.g, n, k.stamp)
		_, recs := f.end()
		var raws [][]byte
		for _, r := range recs {
			raws = append(raws, r.Raw)
		}
		k.give(o, join(raws), recs)
	}
	comma := []byte{','}
	envelope := func(before, after string) func([][]byte) []byte {
		return func(recs [][]byte) []byte {
			return slices.Concat([]byte(before), bytes.Join(recs, comma), []byte(after))
		}
	}
	whole("bare array", 3, envelope("[", "]"))
	whole("line break at the end", 3, envelope(`{"Records":[`, "]}\n"))
	whole("white space around", 3, envelope(" \t\r\n{ \"Records\" :\t[\n", " ]\r\n} \n\n"))
	whole("members before and after", 3, envelope(
		`{"Version":"1","Other":{"Records":[{"eventID":"decoy"}]},"Count":3.0,"Records":[`,
		`],"after":["Records",{"x":"}]"}],"last":null}`))
	whole("one record a line", 3, func(recs [][]byte) []byte {
		return slices.Concat([]byte("{\"Records\":[\n"), bytes.Join(recs, []byte(",\n")), []byte("\n]}"))
	})
	k.give(k.object("empty"), []byte(`{"Records":[]}`), nil)
	k.give(k.object("empty with white space"), []byte("{\"Records\": [ \n ] }\n"), nil)
	k.give(k.object("empty bare array"), []byte(`[]`), nil)

	// Pretty-printed records change: every run of white space with a line
	// break goes, the space after a colon stays.
	for _, style := range []struct{ name, prefix, indent, eol string }{
		{"pretty-printed", "", "  ", "\n"},
		{"pretty-printed with tabs and CRLF", "\t", "\t", "\r\n"},
	} {
		o := k.object(style.name)
		f := begin()
		f.fill(k.g, 3, k.stamp)
		_, recs := f.end()
		raws := make([][]byte, len(recs))
		for i := range recs {
			raws[i] = pretty(recs[i].Raw, style.prefix, style.indent, style.eol)
			recs[i].Raw = Unbroken(raws[i])
		}
		k.give(o, slices.Concat([]byte(`{"Records": [`+style.eol), bytes.Join(raws, []byte(","+style.eol)), []byte(style.eol+"]}"+style.eol)), recs)
	}
	o := k.object("white space without a line break")
	f := begin()
	f.add(func(dst []byte) ([]byte, Record) {
		return append(dst, `{ "eventID" : "spaced-out" ,	"requestParameters" : { } , "list" : [ 1 , 2 ] }`...), Record{EventID: "spaced-out"}
	})
	raw, recs := f.end()
	k.give(o, raw, recs)

	o = k.object("line breaks of all kinds inside a record")
	f = begin()
	f.add(func(dst []byte) ([]byte, Record) {
		return append(dst, "{\n\"eventID\":\n\r \"broken\" ,\r\"a b\":\" c  d \", \"n\":\t1 \t\n,\"m\": [ \r ] }"...), Record{EventID: "broken"}
	})
	raw, recs = f.end()
	recs[0].Raw = []byte(`{"eventID":"broken" ,"a b":" c  d ", "n":	1,"m": [] }`)
	k.give(o, raw, recs)
}

// pretty indents a record as test data and old tools do.
func pretty(raw []byte, prefix, indent, eol string) []byte {
	var b bytes.Buffer
	_ = json.Indent(&b, raw, prefix, indent) // raw is valid
	return bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte(eol))
}

func (k *kit) gzips() {
	with := func(name string, level int, header gzip.Header) {
		o := k.object(name)
		f := begin()
		f.fill(k.g, 20, k.stamp)
		raw, recs := f.end()
		var b bytes.Buffer
		zw, _ := gzip.NewWriterLevel(&b, level)
		zw.Header = header
		_, _ = zw.Write(raw)
		_ = zw.Close()
		o.Body, o.Records = b.Bytes(), recs
		k.send(o)
	}
	with("gzip with name and time", 6, gzip.Header{Name: "111122223333_CloudTrail_us-east-1.json", ModTime: Epoch, OS: 3})
	with("gzip with extra field and comment", 6, gzip.Header{Extra: []byte("ab\x02\x00xy"), Comment: "a comment", OS: 255})
	with("gzip stored", gzip.NoCompression, gzip.Header{OS: 255})
	with("gzip fastest", gzip.BestSpeed, gzip.Header{OS: 255})
	with("gzip best", gzip.BestCompression, gzip.Header{OS: 255})
}

func (k *kit) sizes() {
	for _, size := range []int{20_000, 70_000, 200_000, 262_144, 700_000, MaxRecord} {
		k.sized(fmt.Sprintf("record of %d bytes", size), size)
	}
	o := k.object("1700 records")
	f := begin()
	f.fill(k.g, 1700, k.stamp)
	raw, recs := f.end()
	k.give(o, raw, recs)
}

// sized yields an object whose second record is exactly size bytes long.
func (k *kit) sized(name string, size int) {
	o := k.object(name)
	f := begin()
	f.fill(k.g, 1, k.stamp)
	f.add(func(dst []byte) ([]byte, Record) { return k.long(dst, size) })
	f.fill(k.g, 1, k.stamp)
	raw, recs := f.end()
	k.give(o, raw, recs)
}

// long appends a record that is exactly size bytes long.
func (k *kit) long(dst []byte, size int) ([]byte, Record) {
	at := len(dst)
	dst, r := k.literal(dst, head+`,"responseElements":{"items":[`)
	const pad, tail = `],"padding":"`, `"}}`
	dst = k.g.items(dst, size-(len(dst)-at)-len(pad)-len(tail)-200)
	dst = append(dst, pad...)
	for len(dst)-at < size-len(tail) {
		dst = append(dst, 'x')
	}
	return append(dst, tail...), r
}

func (k *kit) twins() {
	o := k.object("the same events in two objects")
	f := begin()
	f.fill(k.g, 5, k.stamp)
	raw, recs := f.end()
	k.give(o, raw, recs)
	again := k.g.object(k.l, o.Stamp)
	again.Name = o.Name
	k.give(again, slices.Clone(raw), slices.Clone(recs))
	k.g.region = "us-west-2"
	elsewhere := k.g.object(k.l, o.Stamp.Add(slot))
	elsewhere.Name = "the same events in another region"
	k.g.region = Regions()[0]
	k.give(elsewhere, slices.Clone(raw), slices.Clone(recs))

	o = k.object("the same event twice in one object")
	f = begin()
	f.fill(k.g, 2, k.stamp)
	twice := bytes.Clone(f.raw[f.from[1]:])
	f.add(func(dst []byte) ([]byte, Record) { return append(dst, twice...), f.recs[1] })
	raw, recs = f.end()
	k.give(o, raw, recs)
}

func (k *kit) places() {
	g := k.g
	g.region = "xx-future-9"
	o := k.object("a region nobody knows")
	g.region = "us-gov-west-1" // and the records say otherwise than the folder
	k.ordinary(o)
	g.region = Regions()[0]

	o = k.object("another account in the records")
	g.account = Account(1)
	k.ordinary(o)
	g.account = Account(0)

	o = k.object("redelivered into the folder of a later day")
	o.Key = k.l.key(g.account, g.logType, g.region, o.Stamp.AddDate(0, 0, 2), o.Stamp, g.unique())
	k.ordinary(o)

	o = k.object("events of many hours ago")
	f := begin()
	f.fill(g, 2, o.Stamp.Add(-40*time.Hour))
	raw, recs := f.end()
	k.give(o, raw, recs)
}

// ordinary yields o with four ordinary records of the kit's account and region.
func (k *kit) ordinary(o Object) {
	f := begin()
	f.fill(k.g, 4, o.Stamp)
	raw, recs := f.end()
	k.give(o, raw, recs)
}
