package render

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

var update = flag.Bool("update", false, "write golden files")

var forms = []Form{Raw, Envelope, CEF, OCSF}

func newRenderer(t testing.TB, conf Config) *Renderer {
	t.Helper()
	r, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// object is one of an organisation, with all that may be configured of it.
func object() *record.Object {
	return &record.Object{
		Source: "org-trail", Labels: map[string]string{"tenant": "a\nb", "priority": "high"}, Bucket: "acme-logs",
		Key:          "AWSLogs/o-a1b2c3d4e5/111122223333/CloudTrail/us-east-1/2026/11/03/111122223333_CloudTrail_us-east-1_20261103T2205Z_aBcDeFgHiJkLmNoP.json.gz",
		Organization: "o-a1b2c3d4e5", Account: "111122223333", AccountName: "payments \"prod\"", Region: "us-east-1",
		LogType: "CloudTrail", Stamp: time.Date(2026, 11, 3, 22, 5, 0, 0, time.UTC),
	}
}

// corpusRecords returns ordinary and odd records as the agent hands them out;
// fewer with -short.
func corpusRecords(ordinary int) []record.Record {
	longest := corpus.MaxRecord
	if testing.Short() {
		ordinary, longest = 400, 80_000
	}
	c := corpus.New(1)
	layout := corpus.Layouts()[2]
	var all []record.Record
	add := func(o corpus.Object, most int) {
		place := &record.Object{
			Source: "trail", Bucket: "acme-logs", Key: o.Key, Organization: o.Organization, Account: o.Account,
			Region: o.Region, LogType: o.LogType, Stamp: o.Stamp,
		}
		for i := range o.Records[:min(most, len(o.Records))] {
			r := &o.Records[i]
			if len(r.Raw) > longest {
				continue
			}
			all = append(all, record.Record{
				Object: place, Index: r.Index, Raw: r.Raw, EventID: none(r.EventID), EventTime: none(r.EventTime),
			})
		}
	}
	for o := range c.Odd(layout, corpus.Epoch) {
		add(o, 30)
	}
	for o := range c.Objects(corpus.Traffic{Layout: layout}) {
		if len(all) > ordinary {
			break
		}
		add(o, 100)
	}
	return all
}

func none(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func TestNewRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []Config{{Record: "json"}, {Oversize: "cut"}} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "is not known") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// golden records: each kind of event, and what must be escaped.
func goldenRecords() []record.Record {
	o := object()
	raws := []string{
		`{"eventVersion":"1.11","userIdentity":{"type":"AssumedRole","principalId":"AROAIOSFODNN7EXAMPLE:alice","arn":"arn:aws:sts::111122223333:assumed-role/admin/alice","accountId":"111122223333","accessKeyId":"ASIAIOSFODNN7EXAMPLE","sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROAIOSFODNN7EXAMPLE","arn":"arn:aws:iam::111122223333:role/admin","accountId":"111122223333","userName":"admin"},"attributes":{"creationDate":"2026-11-03T21:00:00Z","mfaAuthenticated":"true"}}},"eventTime":"2026-11-03T22:01:07Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"us-east-1","sourceIPAddress":"192.0.2.7","userAgent":"[aws-cli/2.31 md/a=b|c]","requestParameters":{"bucketName":"example","key":"a\u003db/c|d"},"responseElements":null,"additionalEventData":{"bytesTransferredOut":0.0,"big":9007199254740993},"requestID":"R3QU3ST","eventID":"6f1c6a3e-0000-4000-8000-000000000001","readOnly":true,"resources":[{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::example/a"},{"accountId":"111122223333","type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::example"}],"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"111122223333","eventCategory":"Data","tlsDetails":{"tlsVersion":"TLSv1.3"}}`,
		`{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","principalId":"AIDAIOSFODNN7EXAMPLE","arn":"arn:aws:iam::111122223333:user/bob","accountId":"111122223333","accessKeyId":"AKIAIOSFODNN7EXAMPLE","userName":"bob"},"eventTime":"2026-11-03T22:01:08Z","eventSource":"ec2.amazonaws.com","eventName":"TerminateInstances","awsRegion":"us-east-1","sourceIPAddress":"2001:db8::1","userAgent":"x","errorCode":"Client.UnauthorizedOperation","errorMessage":"not allowed:\n act=Forged|x \\ \u0000 \u2028","requestParameters":{"instancesSet":{"items":[{"instanceId":"i-0"}]}},"responseElements":null,"requestID":"r","eventID":"6f1c6a3e-0000-4000-8000-000000000002","eventType":"AwsApiCall","recipientAccountId":"111122223333","a.b":{"c":1e400},"a.b":2,"vpcEndpointId":"vpce-0"}`,
		`{"eventVersion":"1.11","userIdentity":{"accountId":"111122223333","invokedBy":"ec2.amazonaws.com"},"eventTime":"2026-11-03T22:01:09Z","eventSource":"kms.amazonaws.com","eventName":"RotateKey","awsRegion":"us-east-1","sourceIPAddress":"AWS Internal","eventID":"6f1c6a3e-0000-4000-8000-000000000003","serviceEventDetails":{"keyId":"k"},"eventType":"AwsServiceEvent"}`,
		`{"eventVersion":"1.09","eventTime":"2026-11-03T22:02:00Z","awsRegion":"us-east-1","eventID":"6f1c6a3e-0000-4000-8000-000000000004","eventType":"AwsCloudTrailInsight","recipientAccountId":"111122223333","sharedEventId":"s","insightDetails":{"insightContext":{"statistics":{"baseline":{"average":9.82222E-5}}}},"eventCategory":"Insight"}`,
		`{}`,
	}
	var all []record.Record
	for i, raw := range raws {
		r := record.Record{Object: o, Index: i, Raw: []byte(raw)}
		if i < 4 {
			r.EventID = fmt.Appendf(nil, "6f1c6a3e-0000-4000-8000-00000000000%d", i+1)
			r.EventTime = []byte(find(raw, `"eventTime":"`))
		}
		all = append(all, r)
	}
	return all
}

func find(s, mark string) string {
	_, s, _ = strings.Cut(s, mark)
	s, _, _ = strings.Cut(s, `"`)
	return s
}

func TestGolden(t *testing.T) {
	for _, form := range forms {
		for _, limit := range []int{0, 1600} {
			name := string(form) + ".txt"
			if limit > 0 {
				name = string(form) + "-reduced.txt"
				if form == Raw {
					limit = 900
				}
			}
			t.Run(name, func(t *testing.T) {
				r := newRenderer(t, Config{Record: form})
				var got []byte
				for _, rec := range goldenRecords() {
					var err error
					if got, err = r.Append(got, &rec, limit); err != nil {
						got = append(got, err.Error()...)
					}
					got = append(got, '\n')
				}
				file := filepath.Join("../../../testdata/golden", "record-"+name)
				if *update {
					if err := os.WriteFile(file, got, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), string(got)); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// valid reports whether b is one JSON value as the agent takes them.
func valid(b []byte) bool {
	return jsontext.Value(b).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// In every form of every record of the corpus there is no line break, the form
// is valid, and raw and envelope hold the record's bytes.
func TestInvariant7_FormsOfTheCorpus(t *testing.T) {
	for _, form := range forms {
		r := newRenderer(t, Config{Record: form})
		for i, rec := range corpusRecords(2000) {
			before := bytes.Clone(rec.Raw)
			out, err := r.Append([]byte("x"), &rec, 0)
			if err != nil {
				t.Fatalf("%s of record %d: %v", form, i, err)
			}
			out = out[1:]
			if !bytes.Equal(before, rec.Raw) {
				t.Fatalf("%s changed the bytes of record %d", form, i)
			}
			if bytes.ContainsAny(out, "\n\r") {
				t.Fatalf("%s of record %d holds a line break", form, i)
			}
			switch form {
			case Raw:
				if !bytes.Equal(out, rec.Raw) {
					t.Fatalf("record %d is not its bytes", i)
				}
			case Envelope:
				if !valid(out) || !bytes.HasSuffix(out, slicesConcat(`,"record":`, rec.Raw, `}`)) {
					t.Fatalf("envelope of record %d: %.300s", i, out)
				}
			case OCSF:
				if !valid(out) {
					t.Fatalf("ocsf of record %d: %.300s", i, out)
				}
			}
		}
	}
}

func slicesConcat(a string, b []byte, c string) []byte { return slices.Concat([]byte(a), b, []byte(c)) }

func TestEnvelopeSaysWhereARecordCameFrom(t *testing.T) {
	rec := goldenRecords()[0]
	out, err := newRenderer(t, Config{Record: Envelope}).Append(nil, &rec, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ID, Source, Bucket, Key       string
		Index                         int
		Organization, Account, Region string
		AccountName                   string `json:"account_name"`
		LogType                       string `json:"log_type"`
		Labels                        map[string]string
		Record                        json.RawMessage
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	o := rec.Object
	if got.ID != rec.Identity() || got.Source != o.Source || got.Bucket != o.Bucket || got.Key != o.Key ||
		got.Index != rec.Index || got.Organization != o.Organization || got.Account != o.Account ||
		got.Region != o.Region || got.AccountName != o.AccountName || got.LogType != o.LogType {
		t.Errorf("%+v", got)
	}
	if d := cmp.Diff(o.Labels, got.Labels); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(got.Record, rec.Raw) {
		t.Error("the record is not its bytes")
	}
}

// What an attacker can choose — a record's strings, a key, a label — neither
// ends the line nor the form, nor makes a field of its own.
func TestInvariant11_NothingBreaksOutOfAForm(t *testing.T) {
	for _, form := range forms {
		r := newRenderer(t, Config{Record: form})
		for _, rec := range outputtest.OddRecords() {
			out, err := r.Append(nil, &rec, 0)
			if rec.Raw[0] != '{' && (form == CEF || form == OCSF) {
				if fault.KindOf(err) != fault.Refused {
					t.Errorf("%s of an array: %v", form, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s of %.60q: %v", form, rec.Raw, err)
				continue
			}
			if bytes.ContainsAny(out, "\n\r\x00") {
				t.Errorf("%s of %.60q holds a line break or NUL", form, rec.Raw)
			}
			if form != CEF && !valid(out) {
				t.Errorf("%s of %.60q is no JSON: %.200q", form, rec.Raw, out)
			}
		}
	}
	for _, raw := range []string{"{\"a\":\n1}", "{\"a\":\r1}"} {
		for _, form := range forms {
			rec := record.Record{Object: object(), Raw: []byte(raw)}
			if out, err := newRenderer(t, Config{Record: form}).Append([]byte("x"), &rec, 0); fault.KindOf(err) != fault.Refused || string(out) != "x" {
				t.Errorf("%s of a record with a line break: %q, %v", form, out, err)
			}
		}
	}
}

func TestOversizePark(t *testing.T) {
	for _, form := range forms {
		rec := goldenRecords()[0]
		r := newRenderer(t, Config{Record: form, Oversize: Park})
		whole, err := r.Append(nil, &rec, 0)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := r.Append(nil, &rec, len(whole)); err != nil || !bytes.Equal(out, whole) {
			t.Errorf("%s that just fits: %v", form, err)
		}
		out, err := r.Append([]byte("x"), &rec, len(whole)-1)
		if fault.KindOf(err) != fault.TooLarge || fault.HintOf(err) == "" || string(out) != "x" {
			t.Errorf("%s that is one byte too long: %q, %v", form, out, err)
		}
	}
}

func TestReduceInItsOrder(t *testing.T) {
	big := strings.Repeat("x", 200)
	raw := `{ "eventVersion" : "1.11","userIdentity":{"type":"Root","n":0.0},"eventTime":"2026-11-03T22:01:07Z","eventName":"N","other":"` + big + big +
		`","requestParameters":{"a":"` + big + `"},"responseElements":{"b":"` + big + `"},"resources":[],"trailpoll":{"reduced":["forged"]},"eventID":"id","requestParameters":"again"}`
	rec := record.Record{Object: &record.Object{Bucket: "b", Key: "k"}, Index: 7, Raw: []byte(raw), EventID: []byte("id")}
	r := newRenderer(t, Config{})
	for _, c := range []struct {
		limit int
		want  string
	}{
		{len(raw), raw},
		{len(raw) - 1, `{"eventVersion" : "1.11","userIdentity":{"type":"Root","n":0.0},"eventTime":"2026-11-03T22:01:07Z","eventName":"N","other":"` + big + big + `","requestParameters":{"a":"` + big + `"},"resources":[],"eventID":"id","requestParameters":"again","trailpoll":{"reduced":["trailpoll","responseElements"],"bucket":"b","key":"k","index":7}}`},
		{900, `{"eventVersion" : "1.11","userIdentity":{"type":"Root","n":0.0},"eventTime":"2026-11-03T22:01:07Z","eventName":"N","other":"` + big + big + `","resources":[],"eventID":"id","trailpoll":{"reduced":["trailpoll","responseElements","requestParameters"],"bucket":"b","key":"k","index":7}}`},
		{400, `{"eventVersion" : "1.11","userIdentity":{"type":"Root","n":0.0},"eventTime":"2026-11-03T22:01:07Z","eventName":"N","eventID":"id","trailpoll":{"reduced":["trailpoll","responseElements","requestParameters","resources","other"],"bucket":"b","key":"k","index":7}}`},
		{270, `{"eventVersion" : "1.11","eventTime":"2026-11-03T22:01:07Z","eventName":"N","eventID":"id","trailpoll":{"reduced":["trailpoll","responseElements","requestParameters","resources","other","userIdentity"],"bucket":"b","key":"k","index":7}}`},
	} {
		out, err := r.Append(nil, &rec, c.limit)
		if err != nil || string(out) != c.want {
			t.Errorf("limit %d: %v\n got %s\nwant %s", c.limit, err, out, c.want)
		}
	}
	if _, err := r.Append(nil, &rec, 150); fault.KindOf(err) != fault.TooLarge || !strings.Contains(err.Error(), "even when reduced") {
		t.Errorf("limit 150: %v", err)
	}
}

// A record whose white space is all that is too much loses that, and still no
// mark but ours is in it.
func TestReduceWhiteSpace(t *testing.T) {
	rec := record.Record{Object: &record.Object{Bucket: "b", Key: "k"}, Raw: []byte(`{"trailpoll":1,` + strings.Repeat(" ", 500) + `"a":"b"}`)}
	out, err := newRenderer(t, Config{}).Append(nil, &rec, 200)
	if want := `{"a":"b","trailpoll":{"reduced":["trailpoll"],"bucket":"b","key":"k","index":0}}`; err != nil || string(out) != want {
		t.Errorf("%s, %v", out, err)
	}
}

// A record of thousands of small members, or of names larger than any value,
// gets smaller, too.
func TestReduceManyMembersAndLongNames(t *testing.T) {
	for name, raw := range map[string]string{
		"members": `{"eventID":"id"` + strings.Repeat(`,"m":0`, 50_000) + `}`,
		"names":   `{"eventID":"id","` + strings.Repeat("n", 100_000) + `":1,"` + strings.Repeat("o", 100_000) + `":2}`,
		"distinct": func() string {
			b := []byte(`{"eventID":"id"`)
			for i := range 20_000 {
				b = fmt.Appendf(b, `,"m%d":0`, i)
			}
			return string(append(b, '}'))
		}(),
	} {
		for _, form := range forms {
			rec := record.Record{Object: &record.Object{Bucket: "b", Key: "k", Account: "111122223333"}, Raw: []byte(raw), EventID: []byte("id")}
			out, err := newRenderer(t, Config{Record: form}).Append(nil, &rec, 4096)
			if err != nil || len(out) > 4096 {
				t.Errorf("%s, %s: %d bytes, %v", name, form, len(out), err)
			}
		}
	}
}

// drawRecord draws a record: known members and others, of any size, some twice.
func drawRecord(t *rapid.T) record.Record {
	text := rapid.OneOf(rapid.StringN(0, 40, 80), rapid.SampledFrom([]string{"a=b", "x|y", "\\", "\n key=1", "\u2028", `"`, ""}))
	value := rapid.Custom(func(t *rapid.T) string {
		s, _ := json.Marshal(strings.Repeat(text.Draw(t, "text"), rapid.IntRange(1, 60).Draw(t, "times")))
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]string{"0.0", "1.688560107857E9", "9007199254740993", "null", "true", "-0", "[]", "{}"}).Draw(t, "plain")
		case 1:
			return `{"a":` + string(s) + `,"a":1e400}`
		case 2:
			return `[` + string(s) + `,{"ARN":` + string(s) + `}]`
		}
		return string(s)
	})
	name := rapid.OneOf(
		rapid.SampledFrom([]string{
			"eventName", "eventSource", "userIdentity", "requestParameters", "responseElements", "additionalEventData",
			"resources", "trailpoll", "errorCode", "errorMessage", "requestID", "sourceIPAddress", "userAgent", "readOnly",
			"awsRegion", "recipientAccountId", "eventId", "eventID", "eventTime",
		}),
		rapid.StringN(0, 20, 60))
	o := object()
	o.Bucket, o.Key = text.Draw(t, "bucket"), text.Draw(t, "key")
	raw := []byte{'{'}
	id := ""
	if rapid.Bool().Draw(t, "has id") {
		id = rapid.StringMatching(`[a-f0-9-]{1,36}`).Draw(t, "id")
		raw = append(raw, `"eventID":"`+id+`"`...)
	}
	for i := range rapid.IntRange(0, 25).Draw(t, "members") {
		if len(raw) > 1 {
			raw = append(raw, ',')
		}
		n, _ := json.Marshal(name.Draw(t, fmt.Sprint("name ", i)))
		raw = append(append(append(raw, n...), ':'), value.Draw(t, fmt.Sprint("value ", i))...)
	}
	return record.Record{Object: o, Index: rapid.IntRange(0, 5000).Draw(t, "index"), Raw: append(raw, '}'), EventID: none(id)}
}

// Whatever the record and the limit: what comes fits, has no line break, is
// valid, keeps the identity, and is whole if it fits whole.
func TestReduceProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := drawRecord(t)
		form := rapid.SampledFrom(forms).Draw(t, "form")
		r, _ := New(Config{Record: form})
		whole, err := r.Append(nil, &rec, 0)
		if err != nil {
			t.Fatalf("%v of %s", err, rec.Raw)
		}
		limit := rapid.IntRange(1, len(whole)+10).Draw(t, "limit")
		before := bytes.Clone(rec.Raw)
		out, err := r.Append(nil, &rec, limit)
		if !bytes.Equal(before, rec.Raw) {
			t.Fatal("the record was changed")
		}
		if err != nil {
			if fault.KindOf(err) != fault.TooLarge || len(out) > 0 || len(whole) <= limit {
				t.Fatalf("%v, %d bytes beside it", err, len(out))
			}
			return
		}
		if len(out) > limit || bytes.ContainsAny(out, "\r\n") {
			t.Fatalf("%d bytes of %d allowed: %s", len(out), limit, out)
		}
		if len(whole) <= limit {
			if !bytes.Equal(out, whole) {
				t.Fatal("it fitted whole")
			}
			return
		}
		if form != CEF && !valid(out) {
			t.Fatalf("no JSON: %s", out)
		}
		if len(rec.EventID) > 0 && !bytes.Contains(out, rec.EventID) {
			t.Fatalf("the identity is gone: %s", out)
		}
		if !bytes.Contains(out, []byte("reduced")) {
			t.Fatalf("not marked: %s", out)
		}
		if form == Raw {
			keptUnchanged(t, rec.Raw, out)
		}
	})
}

// keptUnchanged: every member of the reduced record but the mark stands in the
// record with the same bytes, and identity, time, name and region are all there.
func keptUnchanged(t *rapid.T, raw, out []byte) {
	w := newWorker()
	all, err := w.members(nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := w.members(nil, out)
	if err != nil {
		t.Fatal(err)
	}
	if last := kept[len(kept)-1]; last.plain != mark {
		t.Fatalf("the last member is %s", last.name)
	}
	kept = kept[:len(kept)-1]
	for _, m := range all {
		if len(kept) > 0 && bytes.Equal(m.whole, kept[0].whole) {
			kept = kept[1:]
		} else if rank(m.plain) == rankNever {
			t.Fatalf("%s was left out", m.name)
		}
	}
	if len(kept) > 0 {
		t.Fatalf("%s was not in the record", kept[0].whole)
	}
}

func TestManyGoroutines(t *testing.T) {
	recs := corpusRecords(300)
	for _, form := range forms {
		r := newRenderer(t, Config{Record: form})
		want := make([]string, len(recs))
		for i := range recs {
			out, _ := r.Append(nil, &recs[i], 2000)
			want[i] = string(out)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				var buf []byte
				for i := range recs {
					buf, _ = r.Append(buf[:0], &recs[i], 2000)
					if string(buf) != want[i] {
						t.Errorf("%s of record %d differs", form, i)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func FuzzAppend(f *testing.F) {
	for _, r := range goldenRecords() {
		f.Add(r.Raw, "acme-logs", "key", 500)
	}
	for _, r := range outputtest.OddRecords() {
		if len(r.Raw) < 10_000 {
			f.Add(r.Raw, r.Object.Bucket, r.Object.Key, 100)
		}
	}
	var renderers []*Renderer
	for _, form := range forms {
		renderers = append(renderers, newRenderer(f, Config{Record: form}))
	}
	f.Fuzz(func(t *testing.T, raw []byte, bucket, key string, limit int) {
		before := bytes.Clone(raw)
		rec := record.Record{Object: &record.Object{Bucket: bucket, Key: key}, Raw: raw}
		// As the splitter hands it out: valid, and the id taken from it.
		sound := valid(raw) && len(raw) > 0 && raw[0] == '{'
		for _, r := range renderers {
			out, err := r.Append(nil, &rec, limit)
			switch {
			case err != nil && (len(out) > 0 || fault.KindOf(err) != fault.Refused && fault.KindOf(err) != fault.TooLarge):
				t.Fatalf("%s: %d bytes beside %v", r.form, len(out), err)
			case err == nil && limit > 0 && len(out) > limit:
				t.Fatalf("%s: %d bytes of %d", r.form, len(out), limit)
			case err == nil && bytes.ContainsAny(out, "\n\r"):
				t.Fatalf("%s: a line break", r.form)
			case err == nil && r.form != CEF && sound && !valid(out):
				t.Fatalf("%s: no JSON: %s", r.form, out)
			}
		}
		if !bytes.Equal(before, raw) {
			t.Fatal("the record was changed")
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	var recs []record.Record
	size := 0
	for o := range corpus.New(1).Uniform(1, 500) {
		place := &record.Object{Source: "trail", Bucket: "acme-logs", Key: o.Key, Account: o.Account, Region: o.Region, LogType: o.LogType}
		for i := range o.Records {
			r := &o.Records[i]
			recs = append(recs, record.Record{Object: place, Index: r.Index, Raw: r.Raw, EventID: none(r.EventID), EventTime: none(r.EventTime)})
			size += len(r.Raw)
		}
	}
	for _, form := range forms {
		for _, limit := range []int{0, 1000} {
			name := string(form)
			if limit > 0 {
				name += "-reduced"
			}
			b.Run(name, func(b *testing.B) {
				r := newRenderer(b, Config{Record: form})
				var buf []byte
				b.SetBytes(int64(size / len(recs)))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					buf, _ = r.Append(buf[:0], &recs[i%len(recs)], limit)
				}
			})
		}
	}
}
