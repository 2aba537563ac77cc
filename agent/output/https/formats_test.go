package https

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

// says makes the receiver answer each request so.
func (r *receiver) says(status int, contentType, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = func(w http.ResponseWriter) {
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// expected is what an answer must come to.
type expected struct {
	kind    fault.Kind // with ok
	ok      bool
	records []int  // in the error
	text    string // in the error, or in what it says of its first record
	hint    string
}

func (e expected) check(t *testing.T, err error) {
	t.Helper()
	if e.ok {
		if err != nil {
			t.Errorf("%v, want success", err)
		}
		return
	}
	if err == nil {
		t.Error("success")
		return
	}
	var got []int
	said := err.Error()
	for _, r := range fault.RefusalsOf(err) {
		got = append(got, r.Index)
		said += "\n" + r.Answer
	}
	if fault.KindOf(err) != e.kind || !slices.Equal(got, e.records) || !strings.Contains(said, e.text) || !strings.Contains(fault.HintOf(err), e.hint) {
		t.Errorf("%v %v, hint %q\n%s\nwant %v %v, %q and %q", fault.KindOf(err), got, fault.HintOf(err), said, e.kind, e.records, e.text, e.hint)
	}
}

// TestElasticAnswers: what _bulk says of each item counts, and its status not.
func TestElasticAnswers(t *testing.T) {
	item := func(status int, kind, reason string) string {
		if status/100 == 2 {
			return fmt.Sprintf(`{"create":{"status":%d}}`, status)
		}
		return fmt.Sprintf(`{"create":{"status":%d,"error":{"type":%q,"reason":%q}}}`, status, kind, reason)
	}
	answer := func(items ...string) string { return `{"errors":true,"items":[` + strings.Join(items, ",") + `]}` }
	ok := item(201, "", "")
	there := item(409, "version_conflict_engine_exception", "[e]: version conflict, document already exists")
	full := item(429, "es_rejected_execution_exception", "queue is full")
	bad := item(400, "document_parsing_exception", "failed to parse field [sourceIPAddress] of type [ip]")
	gone := item(404, "index_not_found_exception", "no such index")
	denied := item(403, "security_exception", "action [indices:data/write/bulk] is unauthorized")
	for name, c := range map[string]struct {
		body string
		want expected
	}{
		"all taken":                 {`{"took":3,"errors":false,"items":[]}`, expected{ok: true}},
		"all there already":         {answer(there, there, there), expected{ok: true}},
		"some there already":        {answer(ok, there, ok), expected{ok: true}},
		"one refused":               {answer(ok, bad, there), expected{kind: fault.Refused, records: []int{1}, text: "document_parsing_exception: failed to parse"}},
		"all refused":               {answer(bad, bad, bad), expected{kind: fault.Refused, records: []int{0, 1, 2}}},
		"one later":                 {answer(ok, full, ok), expected{kind: fault.Throttled, text: "queue is full"}},
		"one later and one refused": {answer(bad, full, ok), expected{kind: fault.Throttled}},
		"a shard is away":           {answer(ok, item(503, "unavailable_shards_exception", "primary shard is not active"), ok), expected{kind: fault.Temporary, text: "primary shard"}},
		"no index":                  {answer(ok, gone, full), expected{kind: fault.Held, text: "no such index", hint: "url"}},
		"forbidden":                 {answer(denied, denied, full), expected{kind: fault.Held, text: "unauthorized"}},
		"too few items":             {answer(ok, bad), expected{kind: fault.Temporary, text: "2 records, and 3 were sent"}},
		"nothing said of one":       {`{"errors":true,"items":[` + ok + `,{},` + ok + `]}`, expected{kind: fault.Temporary}},
		"an old version's error":    {answer(ok, `{"create":{"status":400,"error":"MapperParsingException[x]"}}`, ok), expected{kind: fault.Refused, records: []int{1}, text: "MapperParsingException"}},
		"no JSON":                   {`<html>welcome</html>`, expected{kind: fault.Held, hint: "_bulk"}},
		"another JSON":              {`{"ok":true}`, expected{kind: fault.Held, hint: "_bulk"}},
		"quotes the record":         {answer(ok, item(400, "x", "preview: 'alice.example@corp'"), ok), expected{kind: fault.Refused, records: []int{1}, text: "preview: '…"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := newReceiver(t, nil)
			in.says(200, "application/json", c.body)
			o := open(t, Config{URL: "http://" + in.addr, Format: ElasticBulk, Indexing: Indexing{Index: "i"}})
			err := o.Send(t.Context(), batch(`{"user":"alice.example@corp"}`, `{"user":"alice.example@corp"}`, `{}`))
			c.want.check(t, err)
			for _, r := range fault.RefusalsOf(err) {
				if strings.Contains(r.Answer, "alice") {
					t.Errorf("TestInvariant10: %s", r.Answer)
				}
			}
		})
	}
	t.Run("breaks off", func(t *testing.T) {
		in := newReceiver(t, nil)
		in.mu.Lock()
		in.answer = func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"errors":fal`)
		}
		in.mu.Unlock()
		o := open(t, Config{URL: "http://" + in.addr, Format: ElasticBulk, Indexing: Indexing{Index: "i"}})
		expected{kind: fault.Temporary, text: "reading the receiver's answer"}.check(t, o.Send(t.Context(), batch(`{}`)))
	})
}

// Numbers in an answer are those of what was sent; records that were left out
// are not among it.
func TestRefusalsAmongLeftOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "records")
		fate := rapid.SliceOfN(rapid.IntRange(0, 2), n, n).Draw(t, "fate") // sent, left out, refused
		var left, refused, want []fault.RecordRefusal                      // want: of refused
		sent := 0
		for i, f := range fate {
			switch f {
			case 1:
				left = append(left, fault.RecordRefusal{Index: i})
			case 2:
				refused = append(refused, fault.RecordRefusal{Index: sent})
			}
			if f == 2 {
				want = append(want, fault.RecordRefusal{Index: i})
			}
			if f != 1 {
				sent++
			}
		}
		if renumber(refused, left); !slices.Equal(refused, want) {
			t.Fatalf("%v, want %v", refused, want)
		}
	})
}

// What the receiver says of a record stands at that record, also when others
// were left out, and quotes none.
func TestRefusedBesideLeftOut(t *testing.T) {
	in := newReceiver(t, nil)
	in.says(200, "", `{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":400,"error":{"type":"x","reason":"of bob.example@corp"}}}]}`)
	o := open(t, Config{URL: "http://" + in.addr, Format: ElasticBulk, Indexing: Indexing{Index: "i"}})
	err := o.Send(t.Context(), batch("{\n}", `{"a":1}`, "\n", `{"user":"bob.example@corp"}`))
	expected{kind: fault.Refused, records: []int{0, 2, 3}, text: "of …"}.check(t, err)
	if all := fault.RefusalsOf(err); strings.Contains(all[2].Answer, "bob") || all[0].Answer != "holds a line break" {
		t.Errorf("%v", all)
	}
}

func TestIndexName(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", -7*3600))
	for pattern, want := range map[string]string{
		"plain": "plain", "a-%Y.%m.%d": "a-2026.03.04", "%Y%H": "202612", "100%%": "100%", "%%Y": "%Y",
	} {
		x, err := newIndexName(pattern)
		if got := x.at(at); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"%", "a-%y", "%%%"} {
		if _, err := newIndexName(pattern); err == nil {
			t.Errorf("%s: no error", pattern)
		}
	}
}

// The index is that of the event's day, and an id of any length is one that
// Elasticsearch takes and that is the same each time.
func TestElasticActions(t *testing.T) {
	in := newReceiver(t, nil)
	in.format = ElasticBulk
	o := open(t, Config{URL: "http://" + in.addr, Format: ElasticBulk, Compression: "none", Indexing: Indexing{Index: "t-%Y.%m.%d"}})
	b := goldenBatch()
	long := record.Record{Object: &record.Object{Bucket: "b", Key: strings.Repeat("k", 1000)}, Index: 3, Raw: []byte(`{}`), EventTime: []byte("2026-11-01T23:59:59Z")}
	b.Add(long)
	for range 2 {
		if err := o.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		items, err := parseBulk(in.content)
		if err != nil || len(items) != 4 {
			t.Fatal(len(items), err)
		}
		for i, want := range []string{"t-2026.11.01", "t-2026.11.01", "t-2026.11.02", "t-2026.11.01"} {
			if items[i].Create.Index != want {
				t.Errorf("record %d in %s, want %s", i, items[i].Create.Index, want)
			}
		}
		if id := items[3].Create.ID; len(id) > maxID || id != documentID(&long) {
			t.Errorf("id %s", id)
		}
	}
	if in.last.URL.Path != "/_bulk" || in.last.URL.Query().Get("filter_path") == "" {
		t.Errorf("URL %s", in.last.URL)
	}
}

func TestHECAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   expected
	}{
		"taken":            {200, `{"text":"Success","code":0}`, expected{ok: true}},
		"disabled":         {403, `{"text":"Token disabled","code":1}`, expected{kind: fault.Held, hint: "enable it"}},
		"unknown token":    {403, `{"text":"Invalid token","code":4}`, expected{kind: fault.Held, hint: "check token"}},
		"no data":          {400, `{"text":"No data","code":5}`, expected{kind: fault.Refused}},
		"invalid":          {400, `{"text":"Invalid data format","code":6,"invalid-event-number":1}`, expected{kind: fault.Refused, text: "invalid-event-number"}},
		"index":            {400, `{"text":"Incorrect index","code":7,"invalid-event-number":0}`, expected{kind: fault.Held, hint: "allowed indexes"}},
		"internal":         {500, `{"text":"Internal server error","code":8}`, expected{kind: fault.Temporary}},
		"busy":             {503, `{"text":"Server is busy","code":9}`, expected{kind: fault.Temporary}},
		"channel wanted":   {400, `{"text":"Data channel is missing","code":10}`, expected{kind: fault.Held, hint: "ack = true"}},
		"channel refused":  {400, `{"text":"Invalid data channel","code":11}`, expected{kind: fault.Held}},
		"no event":         {400, `{"text":"Event field is required","code":12}`, expected{kind: fault.Refused}},
		"blank event":      {400, `{"text":"Event field cannot be blank","code":13}`, expected{kind: fault.Refused}},
		"ack is off":       {400, `{"text":"ACK is disabled","code":14}`, expected{kind: fault.Held, hint: "ack = false"}},
		"bad field":        {400, `{"text":"Error in handling indexed fields","code":15}`, expected{kind: fault.Refused}},
		"token in the URL": {400, `{"text":"Query string authorization is not enabled","code":16}`, expected{kind: fault.Held, hint: "set token"}},
		"queue is full":    {503, `{"text":"Queue is full","code":18}`, expected{kind: fault.Temporary}},
		"another answer":   {400, `<html>bad request</html>`, expected{kind: fault.Refused}},
	} {
		t.Run(name, func(t *testing.T) {
			in := newReceiver(t, nil)
			in.says(c.status, "application/json", c.body)
			o := open(t, Config{URL: "http://" + in.addr, Format: SplunkHEC, Token: "T0K3N"})
			c.want.check(t, o.Send(t.Context(), batch(`{"a":1}`, `{}`)))
			if in.last.URL.Path != "/services/collector/event" || in.last.Header.Get("Authorization") != "Splunk T0K3N" {
				t.Errorf("%s, %s", in.last.URL, in.last.Header)
			}
		})
	}
}

// TestHECEvents: the time is the event's; what can't be said is left out.
func TestHECEvents(t *testing.T) {
	in := newReceiver(t, nil)
	in.format = SplunkHEC
	o := open(t, Config{URL: "http://" + in.addr, Format: SplunkHEC, Compression: "none", Indexing: Indexing{Fields: map[string]string{"env": "test", "record_id": "x"}}})
	b := goldenBatch()
	b.Add(record.Record{Object: &record.Object{}, Raw: []byte(`{}`)})
	if err := o.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	events, err := parseHEC(in.content)
	if err != nil || len(events) != 4 {
		t.Fatal(len(events), err)
	}
	for i, want := range []string{"1793526600.000", "1793526900.000", "1793577600.500", ""} {
		if e := events[i]; e.Time.String() != want || e.Fields["env"] != "test" || e.Fields["record_id"] != b.Records[i].Identity() {
			t.Errorf("event %d: %+v, want time %s", i, e, want)
		}
	}
	if e := events[2]; e.Source != "s3://"+b.Records[2].Object.Bucket+"/"+b.Records[2].Object.Key || e.Fields["account_name"] != "payments" {
		t.Errorf("%+v", e)
	}
}

func TestOTLPAnswers(t *testing.T) {
	partial := func(rejected uint64, message string) string {
		var p []byte
		p = protowire.AppendTag(p, partialRejected, protowire.VarintType)
		p = protowire.AppendVarint(p, rejected)
		p = protowire.AppendTag(p, partialMessage, protowire.BytesType)
		p = protowire.AppendString(p, message)
		out := protowire.AppendTag(nil, responsePartial, protowire.BytesType)
		return string(protowire.AppendBytes(out, p))
	}
	const proto = "application/x-protobuf"
	for name, c := range map[string]struct {
		status     int
		kind, body string
		want       expected
	}{
		"nothing":          {200, proto, "", expected{ok: true}},
		"204":              {204, "", "", expected{ok: true}},
		"empty JSON":       {200, "application/json", "{}", expected{ok: true}},
		"text":             {200, "text/plain", "ok", expected{ok: true}},
		"a warning":        {200, proto, partial(0, "slow down"), expected{ok: true}},
		"some rejected":    {200, proto, partial(2, "line too long"), expected{kind: fault.Refused, text: "rejected 2 records: line too long"}},
		"rejected in JSON": {200, "application/json; charset=utf-8", `{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"x"}}`, expected{kind: fault.Refused, text: "rejected 1 records: x"}},
		"a number in JSON": {200, "application/json", `{"partialSuccess":{"rejectedLogRecords":1}}`, expected{kind: fault.Refused}},
		"no protobuf":      {200, proto, "\xff\xff\xff", expected{kind: fault.Held, hint: "/v1/logs"}},
		"no JSON":          {200, "application/json", "<html>", expected{kind: fault.Held, hint: "/v1/logs"}},
		"500":              {500, proto, "", expected{kind: fault.Refused}},
		"502":              {502, "", "", expected{kind: fault.Temporary}},
		"503":              {503, proto, "", expected{kind: fault.Temporary}},
		"429":              {429, proto, "", expected{kind: fault.Throttled}},
		"400":              {400, proto, "\x08\x03\x12\x03bad", expected{kind: fault.Refused, text: "bad"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := newReceiver(t, nil)
			in.says(c.status, c.kind, c.body)
			o := open(t, Config{URL: "http://" + in.addr, Format: OTLP})
			err := o.Send(t.Context(), batch(`{"a":1}`, `{}`))
			c.want.check(t, err)
			if got := fault.UnsureOf(err); got != (c.status == http.StatusInternalServerError) {
				t.Errorf("unsure: %v", got)
			}
			if in.last.URL.Path != "/v1/logs" {
				t.Errorf("%s", in.last.URL)
			}
		})
	}
}

func FuzzPartialSuccess(f *testing.F) {
	f.Add("application/x-protobuf", []byte("\x0a\x04\x08\x02\x12\x00"))
	f.Add("application/json", []byte(`{"partialSuccess":{"rejectedLogRecords":"1"}}`))
	f.Add("", []byte("x"))
	f.Fuzz(func(_ *testing.T, kind string, text []byte) {
		_, _, _ = partialSuccess(kind, text) // no panic, no endless loop
	})
}

func FuzzBulkAnswer(f *testing.F) {
	f.Add([]byte(`{"errors":true,"items":[{"create":{"status":400,"error":{"type":"x"}}}]}`), 1)
	f.Add([]byte(`{"errors":true,"items":[null]}`), 1)
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		n &= 0xff
		out := elastic{}.taken(&http.Response{Body: io.NopCloser(bytes.NewReader(text))}, n)
		for _, r := range out.refused {
			if r.Index < 0 || r.Index >= n {
				t.Fatalf("record %d of %d", r.Index, n)
			}
		}
	})
}

// TestOTLPRecords: attributes as they are meant, resources shared, invalid
// UTF-8 replaced, since protobuf has no place for it.
func TestOTLPRecords(t *testing.T) {
	in := newReceiver(t, nil)
	in.format = OTLP
	o := open(t, Config{URL: "http://" + in.addr, Format: OTLP, Compression: "none", Indexing: Indexing{Fields: map[string]string{"env": "test"}}})
	b := goldenBatch()
	b.Records[2].Object.Labels = map[string]string{"cloud.region": "by label", "\xff": "\xfe"}
	if err := o.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	logs, err := parseOTLP(in.content)
	if err != nil || len(logs) != 3 {
		t.Fatal(len(logs), err)
	}
	for i, l := range logs {
		r := &b.Records[i]
		a := attributes(l.record.Attributes)
		if a["log.record.uid"] != r.Identity() || a["aws.s3.bucket"] != r.Object.Bucket || a["aws.s3.key"] != r.Object.Key {
			t.Errorf("record %d: %v", i, a)
		}
		if got := time.Unix(0, int64(l.record.TimeUnixNano)).UTC(); !got.Equal(r.Time()) {
			t.Errorf("record %d at %v, want %v", i, got, r.Time())
		}
		if _, ok := l.record.Body.Value.(*common.AnyValue_StringValue); !ok || l.record.ObservedTimeUnixNano == 0 {
			t.Errorf("record %d: %v", i, l.record)
		}
		if l.resource["cloud.account.id"] != r.Object.Account || l.resource["env"] != "test" {
			t.Errorf("record %d: %v", i, l.resource)
		}
	}
	if r := logs[2].resource; r["cloud.region"] != "by label" || r["\ufffd"] != "\ufffd" {
		t.Errorf("%v", r)
	}
}

// render is a Renderer that wraps, or makes text, or has no form for some.
type render struct{ text bool }

var errNoForm = errors.New("has no such form")

func (f render) Append(dst []byte, r *record.Record, _ int) ([]byte, error) {
	switch {
	case bytes.Contains(r.Raw, []byte("unfit")):
		return append(dst, "half of it"...), errNoForm
	case f.text:
		return fmt.Appendf(dst, `CEF:0|x|msg=%s`, r.Raw), nil
	}
	return fmt.Appendf(dst, `{"record":%s}`, r.Raw), nil
}

// What the records are rendered to is what arrives, in each format; a record
// that has no form is refused alone.
func TestRendered(t *testing.T) {
	for _, f := range []Format{NDJSON, JSONArray, SplunkHEC, ElasticBulk, OTLP} {
		for _, text := range []bool{false, true} {
			conf := Config{Format: f, Compression: "none", Render: render{text}, Text: text}
			if f == ElasticBulk {
				conf.Indexing.Index = "i"
			}
			in := newReceiver(t, nil)
			in.format, conf.URL = f, "http://"+in.addr
			o, err := New(conf)
			if f == ElasticBulk && text {
				if err == nil {
					t.Error("elastic-bulk takes text")
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			err = o.Send(t.Context(), batch(`{"a":"\u003d"}`, `{"unfit":1}`, `{}`))
			expected{kind: fault.Refused, records: []int{1}, text: "has no such form"}.check(t, err)
			want := []string{`{"record":{"a":"\u003d"}}`, `{"record":{}}`}
			if text {
				want = []string{`CEF:0|x|msg={"a":"\u003d"}`, `CEF:0|x|msg={}`}
			}
			var got []string
			for _, p := range in.Records() {
				if s := ""; text && (f == JSONArray || f == SplunkHEC) {
					if json.Unmarshal(p, &s) != nil {
						t.Errorf("%s: no JSON string: %s", f, p)
					}
					p = []byte(s)
				}
				got = append(got, string(p))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, text %v: %q, want %q", f, text, got, want)
			}
			_ = o.Close()
		}
	}
}

// No bucket, key, label or id breaks out of where it is put: the number of
// events stays that of the records, each holds its own strings, and headers are
// those of the configuration.
func TestInvariant11_NothingBreaksOut(t *testing.T) {
	valid := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
	records := outputtest.OddRecords()
	b := &record.Batch{}
	for _, r := range records {
		b.Add(r)
	}
	for _, f := range []Format{SplunkHEC, ElasticBulk, OTLP} {
		in := newReceiver(t, nil)
		in.format = f
		conf := Config{URL: "http://" + in.addr, Format: f, Compression: "none"}
		if f == ElasticBulk {
			conf.Indexing.Index = "i"
		}
		o := open(t, conf)
		if err := o.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		var ids, sources []string
		switch f {
		case SplunkHEC:
			events, err := parseHEC(in.content)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				ids, sources = append(ids, e.Fields["record_id"]), append(sources, e.Source)
			}
		case ElasticBulk:
			items, err := parseBulk(in.content)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range items {
				ids = append(ids, i.Create.ID)
			}
		case OTLP:
			logs, err := parseOTLP(in.content)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range logs {
				a := attributes(l.record.Attributes)
				ids, sources = append(ids, a["log.record.uid"]), append(sources, "s3://"+a["aws.s3.bucket"]+"/"+a["aws.s3.key"])
			}
		}
		if len(ids) != len(records) {
			t.Fatalf("%s: %d events of %d records", f, len(ids), len(records))
		}
		for i := range records {
			r := &records[i]
			id := r.Identity()
			if f == ElasticBulk {
				id = documentID(r)
			}
			if want := valid(id); len(want) == len(id) && ids[i] != want {
				t.Errorf("%s, record %d: id %.80q, want %.80q", f, i, ids[i], want)
			}
			if sources != nil && valid(sources[i]) != valid("s3://"+r.Object.Bucket+"/"+r.Object.Key) && !strings.Contains(r.Object.Key+r.Object.Bucket, "\xff") {
				t.Errorf("%s, record %d: source %.80q", f, i, sources[i])
			}
		}
		for name := range in.last.Header {
			if !slices.Contains([]string{"Accept", "Accept-Encoding", "Content-Length", "Content-Type", "User-Agent"}, name) {
				t.Errorf("%s: header %s", f, name)
			}
		}
	}
}
