package corpus_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/testdata/corpus"
)

func inflate(t *testing.T, body []byte) []byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// split is a second opinion on what a file holds, by the standard library.
func split(t *testing.T, raw []byte) []json.RawMessage {
	t.Helper()
	var envelope struct{ Records []json.RawMessage }
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("[")) {
		if err := json.Unmarshal(raw, &envelope.Records); err != nil {
			t.Fatal(err)
		}
		return envelope.Records
	}
	if err := json.Unmarshal(raw, &envelope); err != nil {
		t.Fatal(err)
	}
	return envelope.Records
}

// all is every kind of good object, made once.
var all = sync.OnceValue(func() []corpus.Object { return slices.Collect(everything(7)) })

func everything(seed uint64) iter.Seq[corpus.Object] {
	c := corpus.New(seed)
	return func(yield func(corpus.Object) bool) {
		for i, l := range corpus.Layouts() {
			for o := range c.Odd(l, corpus.Epoch) {
				if i > 1 { // two layouts of these will do: some are long
					break
				}
				if !yield(o) {
					return
				}
			}
			for o := range c.Objects(corpus.Traffic{Layout: l, Slots: 1, FilesPerSlot: 1, Clutter: true, LogTypes: corpus.LogTypes()}) {
				if !yield(o) {
					return
				}
			}
		}
	}
}

// TestRecords holds the expected records against what the standard library
// finds in the stored body.
func TestRecords(t *testing.T) {
	keys := map[string]bool{}
	records := 0
	for _, o := range all() {
		if keys[o.Key] {
			t.Errorf("%s comes twice", o.Key)
		}
		keys[o.Key] = true
		if o.Kind != corpus.Log {
			if len(o.Records) > 0 {
				t.Errorf("%s %s has records", o.Kind, o.Key)
			}
			continue
		}
		found := split(t, inflate(t, o.Body))
		if len(found) != len(o.Records) {
			t.Fatalf("%s (%s): %d records in the body, %d expected", o.Key, o.Name, len(found), len(o.Records))
		}
		for i, r := range o.Records {
			records++
			if want := corpus.Unbroken(found[i]); !bytes.Equal(r.Raw, want) {
				t.Errorf("%s record %d (%s): Raw is %.200q, the body has %.200q", o.Key, i, o.Name, r.Raw, want)
			}
			if r.Index != i || !json.Valid(r.Raw) || !utf8.Valid(r.Raw) || bytes.ContainsAny(r.Raw, "\r\n") {
				t.Errorf("%s record %d (%s): bad record %.200q", o.Key, i, o.Name, r.Raw)
			}
			id, at := first(t, r.Raw, "eventID"), first(t, r.Raw, "eventTime")
			if id == "" {
				id = first(t, r.Raw, "eventId")
			}
			if r.EventID != id || r.EventTime != at {
				t.Errorf("%s record %d (%s): id %q time %q, the record has %q %q", o.Key, i, o.Name, r.EventID, r.EventTime, id, at)
			}
		}
	}
	t.Logf("%d objects, %d records", len(keys), records)
}

// first is the first top-level member of that name, as written, if it is a string.
func first(t *testing.T, raw []byte, name string) string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	for dec.More() {
		n, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		if n == name {
			if value[0] != '"' {
				return ""
			}
			return string(value[1 : len(value)-1])
		}
	}
	return ""
}

func digest(objects iter.Seq[corpus.Object]) string {
	h := sha256.New()
	for o := range objects {
		fmt.Fprintln(h, o.Name, o.Key, o.AppearsAt)
		_, _ = h.Write(o.Body)
		for _, r := range o.Records {
			_, _ = h.Write(r.Raw)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestDeterminism(t *testing.T) {
	if a, b := digest(slices.Values(all())), digest(everything(7)); a != b {
		t.Error("the same seed gives two different corpora")
	}
	tr := corpus.Traffic{Slots: 1}
	if digest(corpus.New(1).Objects(tr)) == digest(corpus.New(2).Objects(tr)) {
		t.Error("two seeds give the same corpus")
	}
	if a, b := digest(slices.Values(bad(1))), digest(slices.Values(bad(1))); a != b {
		t.Error("the same seed gives two different sets of bad objects")
	}
	// A sequence that is left early is the beginning of the whole.
	var some []corpus.Object
	for o := range corpus.New(1).Objects(tr) {
		if some = append(some, o); len(some) == 3 {
			break
		}
	}
	i := 0
	for o := range corpus.New(1).Objects(tr) {
		if i < 3 && (o.Key != some[i].Key || !bytes.Equal(o.Body, some[i].Body)) {
			t.Errorf("object %d differs when the sequence is left early", i)
		}
		i++
	}
}

func bad(seed uint64) (objects []corpus.Object) {
	for _, b := range corpus.New(seed).Bad(corpus.Layouts()[0], corpus.Epoch) {
		objects = append(objects, b.Object)
	}
	return objects
}

func percentile(v []int, p float64) int { return v[min(int(p*float64(len(v))), len(v)-1)] }

// TestStatistics holds the shape of ordinary traffic near what was measured in
// published log files.
func TestStatistics(t *testing.T) {
	var sizes, perFile, perSlot []int
	slots := map[string]int{}
	events := map[string]int{}
	has := map[string]int{}
	disordered, raws, stored := 0, 0, 0
	var lag []int
	for o := range corpus.New(42).Objects(corpus.Traffic{Slots: 24, LogTypes: []string{corpus.CloudTrail}}) {
		perFile = append(perFile, len(o.Records))
		slots[o.Account+o.Region+o.Stamp.String()]++
		stored += len(o.Body)
		if !slices.IsSortedFunc(o.Records, func(a, b corpus.Record) int { return strings.Compare(a.EventTime, b.EventTime) }) {
			disordered++
		}
		if d := o.AppearsAt.Sub(o.Stamp); d < -5*time.Minute || d > 3*time.Minute {
			t.Errorf("%s appears %s after its stamp", o.Key, d)
		}
		if o.Stamp.Minute()%5 != 0 || o.Stamp.Second() != 0 {
			t.Errorf("stamp %s is off the grid", o.Stamp)
		}
		for _, r := range o.Records {
			sizes, raws = append(sizes, len(r.Raw)), raws+len(r.Raw)
			events[r.EventID]++
			for _, m := range []string{`"errorCode"`, `"tlsDetails"`, `"resources"`, `"requestParameters":null`, `"responseElements":null`, `"sourceIPAddress":"AWS Internal"`, `"bytesTransferredIn":0.0`, `\u003d`, `"Tag"`} {
				if bytes.Contains(r.Raw, []byte(m)) {
					has[m]++
				}
			}
		}
	}
	for o := range corpus.New(42).Objects(corpus.Traffic{OneTrail: true, LogTypes: []string{corpus.CloudTrail}}) {
		for _, r := range o.Records {
			at, err := time.Parse(time.RFC3339, r.EventTime)
			if err != nil {
				t.Fatal(err)
			}
			lag = append(lag, int(o.Stamp.Sub(at).Seconds()))
		}
	}
	for _, n := range slots {
		perSlot = append(perSlot, n)
	}
	for _, v := range [][]int{sizes, perFile, perSlot, lag} {
		slices.Sort(v)
	}
	for _, c := range []struct {
		what   string
		v      []int
		p      float64
		lo, hi int
	}{
		{"record size", sizes, 0, 500, 900},
		{"record size", sizes, .5, 1000, 1600},
		{"record size", sizes, .9, 1400, 2000},
		{"record size", sizes, .99, 1700, 3500},
		{"record size", sizes, 1, 65_000, 300_000},
		{"records in a file", perFile, 0, 1, 1},
		{"records in a file", perFile, .5, 5, 20},
		{"records in a file", perFile, .95, 60, 250},
		{"records in a file", perFile, 1, 400, 1700},
		{"objects in a slot", perSlot, .5, 2, 5},
		{"objects in a slot", perSlot, 1, 6, 24},
		{"seconds from event to stamp", lag, 0, 0, 60},
		{"seconds from event to stamp", lag, .5, 180, 210},
		{"seconds from event to stamp", lag, .95, 415, 460},
		{"seconds from event to stamp", lag, 1, 505, 608},
	} {
		if got := percentile(c.v, c.p); got < c.lo || got > c.hi {
			t.Errorf("%s: p%g is %d, wanted %d to %d", c.what, c.p*100, got, c.lo, c.hi)
		} else {
			t.Logf("%s: p%g is %d", c.what, c.p*100, got)
		}
	}
	n := len(sizes)
	for what, share := range map[string][2]float64{
		`"errorCode"`: {.08, .12}, `"tlsDetails"`: {.74, .86}, `"resources"`: {.2, .5}, `"requestParameters":null`: {.09, .16},
		`"responseElements":null`: {.82, .93}, `"sourceIPAddress":"AWS Internal"`: {.04, .08},
		`"bytesTransferredIn":0.0`: {.03, .2}, `\u003d`: {.03, .2}, `"Tag"`: {.01, .04},
	} {
		if got := float64(has[what]) / float64(n); got < share[0] || got > share[1] {
			t.Errorf("%s stands in %.1f %% of the records, wanted %.0f to %.0f %%", what, got*100, share[0]*100, share[1]*100)
		}
	}
	twice := 0
	for _, k := range events {
		if k > 2 {
			t.Errorf("an event comes %d times", k)
		}
		if k == 2 {
			twice++
		}
	}
	if share := float64(twice) / float64(len(events)); share < .18 || share > .36 {
		t.Errorf("%.0f %% of the events come twice, wanted about a quarter", share*100)
	}
	if share := float64(disordered) / float64(len(perFile)); share < .25 {
		t.Errorf("only %.0f %% of the files have events out of order", share*100)
	}
	ratio := float64(raws) / float64(stored)
	if ratio < 4.5 || ratio > 13 {
		t.Errorf("gzip ratio is %.1f, wanted 5 to 13", ratio)
	}
	t.Logf("%d objects, %d records, %d bytes, gzip ratio %.1f", len(perFile), n, raws, ratio)
}

// logName is the documented form of a log file's name.
var logName = regexp.MustCompile(`^(.+/)?AWSLogs/(o-[a-z0-9]{10,32}/)?(\d{12})/(CloudTrail(?:-Insight|-NetworkActivity|-Aggregated)?)/([a-z0-9-]+)/\d{4}/\d\d/\d\d/(\d{12})_(CloudTrail(?:-Insight|-NetworkActivity|-Aggregated)?)_([a-z0-9-]+)_\d{8}T\d{4}Z_?[A-Za-z0-9]{16}\.json\.gz$`)

func TestKeys(t *testing.T) {
	seen := map[corpus.Kind]int{}
	layouts := map[string]bool{}
	for _, o := range all() {
		seen[o.Kind]++
		m := logName.FindStringSubmatch(o.Key)
		if (m != nil) != (o.Kind == corpus.Log) {
			t.Errorf("%s %s: wrong kind of key", o.Kind, o.Key)
		}
		if m == nil {
			continue
		}
		if m[3] != o.Account || m[6] != o.Account || m[4] != o.LogType || m[7] != o.LogType || m[5] != o.Region || m[8] != o.Region {
			t.Errorf("%s says otherwise than its object: %+v", o.Key, m)
		}
		if strings.Trim(m[1], "/") != o.Prefix || strings.Trim(m[2], "/") != o.Organization {
			t.Errorf("%s: prefix %q organisation %q", o.Key, o.Prefix, o.Organization)
		}
		if !strings.Contains(o.Key, o.Stamp.Format("_20060102T1504Z")) {
			t.Errorf("%s: stamp %s", o.Key, o.Stamp)
		}
		layouts[m[1]+m[2]] = true
	}
	for _, k := range []corpus.Kind{corpus.Log, corpus.Digest, corpus.Marker, corpus.Foreign} {
		if seen[k] == 0 {
			t.Errorf("no object of kind %s", k)
		}
	}
	if len(layouts) != len(corpus.Layouts()) {
		t.Errorf("layouts seen: %v", layouts)
	}
}

// TestNothingReal keeps real-looking secrets and addresses out.
func TestNothingReal(t *testing.T) {
	key := regexp.MustCompile(`\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b`)
	address := regexp.MustCompile(`"sourceIPAddress":"(\d+\.\d+\.\d+)\.\d+"`)
	for _, o := range all() {
		for _, r := range o.Records {
			for _, k := range key.FindAllString(string(r.Raw), -1) {
				if !strings.HasSuffix(k, "EXAMPLE") {
					t.Fatalf("%s looks like a real id", k)
				}
			}
			if m := address.FindStringSubmatch(string(r.Raw)); m != nil && !slices.Contains([]string{"192.0.2", "198.51.100", "203.0.113"}, m[1]) {
				t.Fatalf("%s is no documentation address", m[0])
			}
		}
	}
}

// TestOdd names the cases that must not go missing.
func TestOdd(t *testing.T) {
	found := map[string]bool{}
	longest := 0
	for o := range corpus.New(1).Odd(corpus.Layouts()[0], corpus.Epoch) {
		found[o.Name] = true
		for _, r := range o.Records {
			longest = max(longest, len(r.Raw))
			for _, text := range []string{`9007199254740993`, `1.688560107857E9`, `9.82222E-5`, `"Tag"`, `\u003d`, `\ud800`, `"requestID":"first","requestID":"second"`, `"eventId"`, `AwsVpceEvent`, `AwsCloudTrailInsight`, `AwsAggregatedEvent`} {
				if bytes.Contains(r.Raw, []byte(text)) {
					found[text] = true
				}
			}
		}
	}
	for _, name := range []string{
		`9007199254740993`, `1.688560107857E9`, `9.82222E-5`, `"Tag"`, `\u003d`, `\ud800`, `"requestID":"first","requestID":"second"`, `"eventId"`,
		`AwsVpceEvent`, `AwsCloudTrailInsight`, `AwsAggregatedEvent`, "empty", "bare array", "pretty-printed", "gzip with name and time",
		"the same events in two objects", "the same event twice in one object", "members before and after", "record of 262144 bytes",
	} {
		if !found[name] {
			t.Errorf("no odd object shows %s", name)
		}
	}
	if longest != corpus.MaxRecord {
		t.Errorf("the longest record has %d bytes", longest)
	}
}

// TestBad holds the bad objects against the standard library as far as that
// can tell: which stored bytes are no single gzip member, which content is no
// JSON, and that what must be delivered stands in them.
func TestBad(t *testing.T) {
	names := map[string]bool{}
	for _, b := range corpus.New(3).Bad(corpus.Layouts()[2], corpus.Epoch) {
		names[b.Name] = true
		var raw []byte
		zr, err := gzip.NewReader(bytes.NewReader(b.Body))
		rest := 0
		if err == nil {
			zr.Multistream(false)
			raw, err = io.ReadAll(zr)
			if err == nil {
				src := bytes.NewReader(b.Body)
				if zr, err = gzip.NewReader(src); err == nil {
					zr.Multistream(false)
					_, err = io.Copy(io.Discard, zr)
					rest = src.Len()
				}
			}
		}
		switch b.Reason {
		case "truncated":
			if err != io.ErrUnexpectedEOF {
				t.Errorf("%s: %v", b.Name, err)
			}
		case "corrupt":
			if err == nil || err == io.ErrUnexpectedEOF {
				t.Errorf("%s: %v", b.Name, err)
			}
		case "trailing-data":
			if err != nil || rest == 0 || !json.Valid(raw) {
				t.Errorf("%s: %v, %d bytes behind", b.Name, err, rest)
			}
		case "bomb":
			if err != nil || !json.Valid(raw) || len(raw) < 16<<20+200*len(b.Body) {
				t.Errorf("%s: %v, %d bytes from %d", b.Name, err, len(raw), len(b.Body))
			}
		case "not-json":
			var envelope struct{ Records []json.RawMessage }
			if err != nil || json.Unmarshal(raw, &envelope) == nil && envelope.Records != nil {
				t.Errorf("%s: gzip %v, and the content is a log file", b.Name, err)
			}
		case "unreadable-record":
			if err != nil || json.Valid(raw) && utf8.Valid(raw) {
				t.Errorf("%s: gzip %v, and the content is valid", b.Name, err)
			}
		case "too-large":
			if err != nil || !json.Valid(raw) {
				t.Errorf("%s: %v", b.Name, err)
			}
		default:
			t.Errorf("%s: reason %q", b.Name, b.Reason)
		}
		for _, r := range b.Records {
			if r.Index == b.Record || !bytes.Contains(raw, r.Raw) {
				t.Errorf("%s: record %d can't be delivered", b.Name, r.Index)
			}
		}
		if want := map[bool]int{true: 59, false: 50}[b.RecordOnly]; b.Record >= 0 && len(b.Records) != want {
			t.Errorf("%s: %d records to deliver, wanted %d", b.Name, len(b.Records), want)
		}
	}
	if len(names) < 25 {
		t.Errorf("only %d cases", len(names))
	}
}

func TestLarge(t *testing.T) {
	l := corpus.New(5).Large(1000, 1_500_000)
	var body bytes.Buffer
	n, err := l.WriteTo(&body)
	if err != nil || n != int64(body.Len()) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	raw := inflate(t, body.Bytes())
	if len(raw) < 1_350_000 || len(raw) > 1_650_000 {
		t.Errorf("inflates to %d bytes", len(raw))
	}
	found := split(t, raw)
	i := 0
	for r := range l.Records() {
		if !bytes.Equal(r.Raw, found[i]) || r.Index != i || r.EventID != first(t, r.Raw, "eventID") {
			t.Fatalf("record %d differs", i)
		}
		i++
	}
	if i != 1000 || len(found) != 1000 {
		t.Errorf("%d records, %d in the body", i, len(found))
	}
}

func TestUniform(t *testing.T) {
	n, records := 0, 0
	for o := range corpus.New(5).Uniform(20, 50) {
		n, records = n+1, records+len(o.Records)
	}
	if n != 20 || records != 1000 {
		t.Errorf("%d objects, %d records", n, records)
	}
}

// BenchmarkObjects is what making the corpus costs, per record.
func BenchmarkObjects(b *testing.B) {
	next, stop := iter.Pull(corpus.New(1).Uniform(1<<30, 500))
	defer stop()
	for b.Loop() {
		o, _ := next()
		b.SetBytes(int64(500 * len(o.Records[0].Raw)))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/500, "µs/record")
}
