package outputtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/record"
)

// object returns an object as CloudTrail names it.
func object() *record.Object {
	return &record.Object{
		Source: "org-trail", Bucket: "acme-cloudtrail-logs",
		Key: "AWSLogs/111122223333/CloudTrail/eu-central-1/2026/11/01/" +
			"111122223333_CloudTrail_eu-central-1_20261101T0955Z_aBcDeFgHiJkLmNoP.json.gz",
		Account: "111122223333", Region: "eu-central-1", LogType: "CloudTrail",
		Stamp: time.Date(2026, 11, 1, 9, 55, 0, 0, time.UTC),
	}
}

// Numbered returns n small records of one object, whose event ids hold name.
func Numbered(name string, n int) []record.Record {
	o := object()
	records := make([]record.Record, n)
	for i := range records {
		id := fmt.Sprintf("%s-%d", name, i)
		records[i] = record.Record{
			Object: o, Index: i,
			Raw:     fmt.Appendf(nil, `{"eventTime":"2026-11-01T09:50:%02dZ","eventID":"%s"}`, i%60, id),
			EventID: []byte(id), EventTime: fmt.Appendf(nil, "2026-11-01T09:50:%02dZ", i%60),
		}
	}
	return records
}

// hostile are strings that try to break out of where they are put.
var hostile = []string{
	"a\nb", "a\r\nHost: evil\r\n\r\n", "a\x00b", "a\x1b[31mb", "\t", "\x7f", "a\u0085b\u2028c\u2029d",
	`"]` + "\n" + `<134>1 - - - - - - forged`, `\"]`, `]`, `\`, `"`, `%s%n%d`, "\xff\xfe", "a\xc3", "\u202e",
	"7 <1>1 - -", "[x@1 y=\"z\"]", strings.Repeat("k", 1024), strings.Repeat("\n", 600), "Ω→😀", "",
}

// OddRecords returns the records that outputs have stumbled over: quotes,
// escapes, percent signs, numbers that no float carries, a member name twice,
// up to 1 MiB, and bucket names, keys, labels and event ids full of what ends a
// line, a field or a message.
func OddRecords() []record.Record {
	var records []record.Record
	add := func(r record.Record) {
		r.Index = len(records)
		records = append(records, r)
	}
	for _, raw := range []string{
		`{}`,
		`{"a":0.0,"b":1.688560107857E9,"c":9007199254740993,"d":9.82222E-5,"e":-0}`,
		`{"Tag":1,"tag":2,"tag":3}`,
		`{"a":"\u003d\u0026\u003c \u0000 \u202f \ud83d\ude00 \ud800 \/ \b\f\n\r\t\" \\ \u000a"}`,
		`{"a":"’ Ω 😀 ` + "\u2028\u2029\u0085\u200b\ufeff" + `"}`,
		`{"a":"%s %n %d %% %0A","b":"<134>1 - - - - - - x","c":"12 <1>1","d":"]\" [x@1 y=\"z\"]"}`,
		`{ "a" : [ 1 , 2 ] ,` + "\t" + `"b" : { } }`,
		`{"":"","a.b":{"c d":null}}`,
		`{"a":"` + "\x7f" + `"}`,
		`{"big":"` + strings.Repeat("x", 1<<20-20) + `"}`,
		`{"big":"` + strings.Repeat(`\\\"😀`, 4000) + `"}`,
		`[` + strings.Repeat(`[`, 200) + strings.Repeat(`]`, 200) + `]`,
	} {
		add(record.Record{Object: object(), Raw: []byte(raw)})
	}
	for i, s := range hostile {
		raw := fmt.Appendf(nil, `{"hostile":%d}`, i)
		o := object()
		o.Key = s
		add(record.Record{Object: o, Raw: raw})
		o = object()
		o.Bucket, o.Account, o.Region, o.LogType = s, s, s, s
		add(record.Record{Object: o, Raw: raw})
		o = object()
		o.Labels = map[string]string{s: s, "env": s, "a=\"]": "x"}
		o.Source, o.AccountName, o.Organization = s, s, s
		add(record.Record{Object: o, Raw: raw})
		add(record.Record{Object: object(), Raw: raw, EventID: []byte(s), EventTime: []byte(s)})
	}
	for _, at := range []string{
		"2026-11-01T09:50:00Z", "2026-11-01T09:50:00.123456789Z", "0000-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "x",
	} {
		add(record.Record{Object: object(), Raw: []byte(`{"at":1}`), EventTime: []byte(at)})
	}
	add(record.Record{Object: &record.Object{}, Raw: []byte(`{"nothing":"known"}`)})
	return records
}

// anyRecord generates records of any text, with any text around them.
func anyRecord() *rapid.Generator[record.Record] {
	return rapid.Custom(func(t *rapid.T) record.Record {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom(hostile))
		raw, err := json.Marshal(map[string]string{text.Draw(t, "name"): text.Draw(t, "value")})
		if err != nil {
			t.Fatalf("making a record: %v", err)
		}
		o := object()
		o.Bucket, o.Key, o.LogType = text.Draw(t, "bucket"), text.Draw(t, "key"), text.Draw(t, "log type")
		return record.Record{Object: o, Raw: raw, EventID: []byte(text.Draw(t, "id"))}
	})
}
