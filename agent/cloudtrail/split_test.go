package cloudtrail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/record"
)

// step is what one call of Next gave, kept.
type step struct {
	raw, id, at string
	index       int
	reason      record.Reason // of an *Error
	only        bool
	end         bool // io.EOF
	err         error
}

// String leaves out what may differ between the ways to read.
func (s step) String() string {
	switch {
	case s.end:
		return "end"
	case s.reason != "":
		return fmt.Sprintf("%d: %s only=%v", s.index, s.reason, s.only)
	case s.err != nil:
		return fmt.Sprintf("%d: %v", s.index, s.err)
	}
	return fmt.Sprintf("%d: %s id=%s at=%s", s.index, s.raw, s.id, s.at)
}

func keep(r record.Record, err error) step {
	if e, ok := errors.AsType[*Error](err); ok {
		return step{index: e.Record, reason: e.Reason, only: e.RecordOnly, err: err}
	}
	if err != nil {
		return step{end: errors.Is(err, io.EOF), err: err}
	}
	return step{index: r.Index, raw: string(r.Raw), id: string(r.EventID), at: string(r.EventTime)}
}

// walk calls Next to the end and once more.
func walk(t interface{ Fatalf(string, ...any) }, s *Splitter) []step {
	var steps []step
	for {
		st := keep(s.Next())
		steps = append(steps, st)
		if st.err != nil && !st.only {
			if again := keep(s.Next()); again.String() != st.String() {
				t.Fatalf("after %v: %v", st, again)
			}
			return steps
		}
		if st.index != s.Records()-1 {
			t.Fatalf("record %d of %d", st.index, s.Records())
		}
	}
}

func walkBytes(t interface{ Fatalf(string, ...any) }, data []byte, maxRecord int) []step {
	var s Splitter
	s.Reset(bytes.Clone(data), maxRecord)
	return walk(t, &s)
}

func text(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// splits are objects and what comes of them: records as they are, "!reason"
// for a record that is unfit, "!!reason" for an object that is.
var splits = []struct {
	name, in string
	want     []string
}{
	{"envelope", `{"Records":[{"a":1},{"b":2}]}`, []string{`{"a":1}`, `{"b":2}`}},
	{"one", `{"Records":[{}]}`, []string{`{}`}},
	{"final newline", `{"Records":[{}]}` + "\n", []string{`{}`}},
	{"bare array", `[{"a":1},{"b":2}]`, []string{`{"a":1}`, `{"b":2}`}},
	{"empty", `{"Records":[]}`, nil},
	{"empty with white space", " {\n \"Records\" :\r\n\t[ \n ]\n }\n ", nil},
	{"empty bare array", `[]`, nil},
	{"null", `{"Records":null}`, nil},
	{"null between members", `{"a":1,"Records":null,"b":2}`, nil},
	{"members before", `{"version":"1","meta":{"Records":[{"no":1}]},"Records":[{"a":1}]}`, []string{`{"a":1}`}},
	{"members behind", `{"Records":[{"a":1}],"x":[1,{"y":2}],"z":null}`, []string{`{"a":1}`}},
	{"twice Records", `{"Records":[{"a":1}],"Records":[],"Records":[{"b":2}]}`, []string{`{"a":1}`, `{"b":2}`}},
	{"spaces stay", `{"Records":[ {"a": 1, "b" :2 } , { } ]}`, []string{`{"a": 1, "b" :2 }`, `{ }`}},
	{"line breaks go", "{\"Records\":[{\r\n  \"a\": 1,\n\t\"b\"\n:\t2 ,\"c\": [ ]\n}]}", []string{"{\"a\": 1,\"b\":\t2 ,\"c\": [ ]}"}},
	{"line breaks in strings are escapes", "{\"Records\":[{\n\"a\":\"x\\n  y\",\n\"b\":\"\\\"\"\n}]}", []string{`{"a":"x\n  y","b":"\""}`}},
	{"nothing is written anew", `{"Records":[{"n":0.0,"t":1.688560107857E9,"e":"\u003d\/","Tag":1,"tag":2,"d":1,"d":2,"i":9007199254740993,"s":"\ud800"}]}`,
		[]string{`{"n":0.0,"t":1.688560107857E9,"e":"\u003d\/","Tag":1,"tag":2,"d":1,"d":2,"i":9007199254740993,"s":"\ud800"}`}},
	{"no member at all", `{"Records":[{"a":"\"eventID\":\"x\""}]}`, []string{`{"a":"\"eventID\":\"x\""}`}},

	{"null element", `{"Records":[{"a":1},null,{"b":2}]}`, []string{`{"a":1}`, `!unreadable-record`, `{"b":2}`}},
	{"other elements", `[1,"}",true,[{"a":1}],{"b":2},0.0]`, []string{`!unreadable-record`, `!unreadable-record`, `!unreadable-record`, `!unreadable-record`, `{"b":2}`, `!unreadable-record`}},
	{"bad UTF-8", "{\"Records\":[{\"a\":1},{\"a\":\"\xff\"},{\"b\":2}]}", []string{`{"a":1}`, `!unreadable-record`, `{"b":2}`}},
	{"bad UTF-8 in a name", "{\"Records\":[{\"\xc3\":1},{\"b\":2}]}", []string{`!unreadable-record`, `{"b":2}`}},
	{"bad UTF-8 cut by the quote", "{\"Records\":[{\"a\":\"\xe2\x82\"},{\"b\":2}]}", []string{`!unreadable-record`, `{"b":2}`}},
	{"bad UTF-8 in a string element", "[\"\xff\",{}]", []string{`!unreadable-record`, `{}`}},
	{"bad JSON in a record", `{"Records":[{"a":tru},{"b":2}]}`, []string{`!unreadable-record`, `{"b":2}`}},
	{"bad number in a record", `{"Records":[{"a":01},{"b":2}]}`, []string{`!unreadable-record`, `{"b":2}`}},
	{"equals sign for a colon", `{"Records":[{a=1},{"b":2}]}`, []string{`!unreadable-record`, `{"b":2}`}},
	{"backslash between tokens", `{"Records":[{"a":\},{"b":2}]}`, []string{`!unreadable-record`, `{"b":2}`}},
	{"trailing comma in a record", `{"Records":[{"a":1,},{"b":2}]}`, []string{`!unreadable-record`, `{"b":2}`}},
	{"control character in a string", "{\"Records\":[{\"a\":\"x\ny\"},{\"b\":2}]}", []string{`!unreadable-record`, `{"b":2}`}},
	{"bad escape", `{"Records":[{"a":"\x"},{"b":2}]}`, []string{`!unreadable-record`, `{"b":2}`}},
	{"bad at the last", `{"Records":[{"a":1},{"a":}]}`, []string{`{"a":1}`, `!unreadable-record`}},

	{"stray quote", `{"Records":[{"a":1},{"a":"x"y","b":2},{"c":"z"}]}`, []string{`{"a":1}`, `!!not-json`}},
	{"missing colon", `{"Records":[{"a"1},{"b":2}]}`, []string{`!!not-json`}},
	{"stray quote before what looks like a record", `{"Records":[{"a":"x"y","b":"},{}"},{"c":1}]}`, []string{`!!not-json`}},
	{"stray quote at a comma", `{"Records":[{"a":"x",y","b":"},{}"},{"c":1}]}`, []string{`!!not-json`}},
	{"quote missing before what looks like a record", `{"Records":[{"a":x":",":1},{"},{}":2}]}`, []string{`!!not-json`}},
	{"quote missing", `{"Records":[{"a":x","b":"},{}"},{"c":1}]}`, []string{`!!not-json`}},
	{"stray quote before an escaped document", `{"Records":[{"a":"x"y","b":"{\"c\":{}}"},{"c":{}}]}`, []string{`!!not-json`}},
	{"brackets crossed", `{"Records":[{"a":[1}],{"b":2}]}`, []string{`!!not-json`}},
	{"control character between tokens", "{\"Records\":[{\"a\":\x001},{\"b\":2}]}", []string{`!!not-json`}},
	{"bad number element", `{"Records":[1.,{"b":2}]}`, []string{`!!not-json`}},
	{"number that ends early", `{"Records":[01,{"b":2}]}`, []string{`!unreadable-record`, `!!not-json`}},
	{"bad literal element", `{"Records":[{},nul,{"b":2}]}`, []string{`{}`, `!!not-json`}},
	{"two commas", `{"Records":[{},,{}]}`, []string{`{}`, `!!not-json`}},
	{"comma at the end", `{"Records":[{},]}`, []string{`{}`, `!!not-json`}},
	{"comma first", `{"Records":[,{}]}`, []string{`!!not-json`}},
	{"no comma", `{"Records":[{}{}]}`, []string{`{}`, `!!not-json`}},
	{"closed by a brace", `{"Records":[{}}`, []string{`{}`, `!!not-json`}},
	{"cut in a record", `{"Records":[{},{"a":"b`, []string{`{}`, `!!not-json`}},
	{"cut in a bad record", `{"Records":[{},{"a":tru,"b`, []string{`{}`, `!!not-json`}},
	{"cut in a number", `{"Records":[{},12`, []string{`{}`, `!!not-json`}},
	{"cut between records", `{"Records":[{},`, []string{`{}`, `!!not-json`}},
	{"cut behind a record", `{"Records":[{}`, []string{`{}`, `!!not-json`}},
	{"cut behind a bad record", `{"Records":[{"a":tru}`, []string{`!!not-json`}},
	{"cut behind the array", `{"Records":[{}]`, []string{`{}`, `!!not-json`}},
	{"cut in the envelope", `{"Records"`, []string{`!!not-json`}},
	{"cut before the value", `{"Records":`, []string{`!!not-json`}},
	{"cut in a name", `{"Rec`, []string{`!!not-json`}},
	{"only a brace", `{`, []string{`!!not-json`}},
	{"bad member behind", `{"Records":[{"a":1}],"x":tru}`, []string{`{"a":1}`, `!!not-json`}},
	{"comma behind the last member", `{"Records":[{"a":1}],}`, []string{`{"a":1}`, `!!not-json`}},
	{"bad UTF-8 beside", "{\"x\":\"\xff\",\"Records\":[{\"a\":1}]}", []string{`!!not-json`}},
	{"no colon", `{"Records"[]}`, []string{`!!not-json`}},
	{"name without quotes", `{Records:[]}`, []string{`!!not-json`}},
	{"something behind", `{"Records":[{"a":1}]}{"Records":[]}`, []string{`{"a":1}`, `!!not-json`}},
	{"a zero byte behind", "{\"Records\":[{\"a\":1}]}\x00", []string{`{"a":1}`, `!!not-json`}},
	{"something behind an array", `[{}] 1`, []string{`{}`, `!!not-json`}},
	{"nothing", ``, []string{`!!not-json`}},
	{"white space", " \n", []string{`!!not-json`}},
	{"no Records", `{"awsAccountId":"1","logFiles":[]}`, []string{`!!not-json`}},
	{"empty object", `{}`, []string{`!!not-json`}},
	{"Records an object", `{"Records":{}}`, []string{`!!not-json`}},
	{"Records a string", `{"Records":"[]"}`, []string{`!!not-json`}},
	{"records", `{"records":[{"a":1}]}`, []string{`!!not-json`}},
	{"scalar", `null`, []string{`!!not-json`}},
	{"text", `hello`, []string{`!!not-json`}},
	{"byte order mark", "\xef\xbb\xbf" + `{"Records":[{"a":1}]}`, []string{`!!not-json`}},
	{"one record a line", `{"a":1}` + "\n" + `{"b":2}`, []string{`!!not-json`}},
}

func TestInvariant7_RecordsPassUnchanged(t *testing.T) {
	for _, c := range splits {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for i, s := range walkBytes(t, []byte(c.in), 1<<20) {
				switch {
				case s.end:
				case s.reason != "" && s.only:
					got = append(got, "!"+string(s.reason))
				case s.reason != "":
					got = append(got, "!!"+string(s.reason))
				case s.err != nil:
					t.Fatal(s.err)
				default:
					got = append(got, s.raw)
				}
				if !s.end && s.index != i {
					t.Errorf("%v: want record %d", s, i)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q\n got %q\nwant %q", c.in, got, c.want)
			}
		})
	}
}

// However the bytes arrive, and whether the records are taken one by one or by
// the chunk, the same comes out.
func TestSplitterSameHoweverRead(t *testing.T) {
	for _, c := range splits {
		for _, maxRecord := range []int{1 << 20, 12} {
			checkSameHoweverRead(t, []byte(c.in), maxRecord, 1)
		}
	}
	data := sampleObject(300) // several windows
	checkSameHoweverRead(t, data, 1<<20, 2)
	checkSameHoweverRead(t, data, 1000, 3)
}

func checkSameHoweverRead(t interface {
	Helper()
	Fatalf(string, ...any)
}, data []byte, maxRecord int, seed uint64,
) {
	t.Helper()
	want := text(walkBytes(t, data, maxRecord))
	rnd := rand.New(rand.NewPCG(seed, 1))
	for name, r := range map[string]io.Reader{
		"whole":         bytes.NewReader(data),
		"byte by byte":  iotest.OneByteReader(bytes.NewReader(data)),
		"end with data": iotest.DataErrReader(bytes.NewReader(data)),
		"random pieces": &pieces{data: data, rnd: rnd},
	} {
		var s Splitter
		s.ResetReader(r, maxRecord)
		if got := text(walk(t, &s)); got != want {
			t.Fatalf("%.300q %s:\n got %.2000s\nwant %.2000s", data, name, got, want)
		}
		if most := maxRecord + slack; cap(s.win.buf) > most {
			t.Fatalf("%s: window of %d bytes, at most %d", name, cap(s.win.buf), most)
		}
	}
	for _, reader := range []bool{false, true} {
		var s Splitter
		if reader {
			s.ResetReader(&pieces{data: data, rnd: rnd}, maxRecord)
		} else {
			s.Reset(bytes.Clone(data), maxRecord)
		}
		var got []step
		for {
			buf := make([]byte, 0, rnd.IntN(4000))
			room := cap(buf)
			buf, recs, err := s.Fill(buf, make([]record.Record, 0, 1+rnd.IntN(5)))
			size := 0
			for _, r := range recs {
				got = append(got, keep(r, nil))
				size += len(r.Raw)
			}
			if size != len(buf) || len(buf) > room && len(recs) > 1 || err == nil && len(recs) == 0 {
				t.Fatalf("Fill of %d bytes: %d records of %d bytes in %d (%v)", room, len(recs), size, len(buf), err)
			}
			if err != nil {
				got = append(got, keep(record.Record{}, err))
				if st := got[len(got)-1]; !st.only {
					break
				}
			}
		}
		if text(got) != want {
			t.Fatalf("%.300q by Fill:\n got %.2000s\nwant %.2000s", data, text(got), want)
		}
	}
}

// pieces is a reader of random short reads, some empty.
type pieces struct {
	data []byte
	rnd  *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(len(p.data), p.rnd.IntN(1<<p.rnd.IntN(16)))])
	p.data = p.data[n:]
	return n, nil
}

func TestEventIDAndTime(t *testing.T) {
	for _, c := range []struct{ in, id, at string }{
		{`{"eventTime":"2023-07-10T12:11:15Z","eventID":"a-1"}`, "a-1", "2023-07-10T12:11:15Z"},
		{`{"eventId":"b-2"}`, "b-2", ""},
		{`{"eventId":"b-2","eventID":"a-1"}`, "a-1", ""},
		{`{"eventID":null,"eventId":"b-2"}`, "b-2", ""},
		{`{"eventID":"","eventId":"b-2"}`, "b-2", ""},
		{`{"eventID":"first","eventID":"second"}`, "first", ""},
		{`{"responseElements":{"eventID":"x","eventTime":"y"},"a":[{"eventID":"x"}]}`, "", ""},
		{`{"eventID":["x"],"a":"\",\"eventID\":\"x\""}`, "", ""},
		{"{\n\n \"eventID\"\n : \"a-1\" ,\n\"eventTime\":\n\"z\"\n}", "a-1", "z"},
		{`{"eventID":"a\u002d1"}`, `a\u002d1`, ""},
		{`{"x":1}`, "", ""},
	} {
		steps := walkBytes(t, []byte(`{"Records":[{"eventID":"other","eventTime":"other"},`+c.in+`]}`), 1<<20)
		if s := steps[1]; s.id != c.id || s.at != c.at {
			t.Errorf("%s: id %q time %q, want %q %q", c.in, s.id, s.at, c.id, c.at)
		}
	}
}

func TestInvariant8_RecordOverTheLimitStaysOneRecord(t *testing.T) {
	const limit = 4096
	for _, size := range []int{limit - 1, limit, limit + 1, limit + slack, limit + slack + 1, 300 << 10} {
		for name, rec := range map[string]string{
			"good":             `{"a":"` + strings.Repeat("x", size-8) + `"}`,
			"brackets":         `{"a":"` + strings.Repeat("}", size-8) + `"}`,
			"nested":           `{"a":[` + strings.Repeat(`[],`, (size-8-2)/3) + strings.Repeat(" ", (size-8-2)%3) + `[]]}`,
			"bad at the start": `{"a":tru` + strings.Repeat(" ", size-9) + `}`,
			"bad at the end":   `{"a":"` + strings.Repeat("x", size-9) + "\xff" + `"}`,
			"escapes":          `{"a":"` + strings.Repeat(`\"`, (size-8)/2) + strings.Repeat("x", size%2) + `"}`,
			"string":           `"` + strings.Repeat(`x`, size-2) + `"`,
			"array":            `[` + strings.Repeat(` `, size-2) + `]`,
		} {
			if len(rec) != size {
				t.Fatalf("%s has %d bytes, not %d", name, len(rec), size)
			}
			doc := []byte(`{"Records":[{"a":1},` + rec + `,{"b":2}]}`)
			want := "1: unreadable-record only=true"
			switch {
			case size > limit:
				want = "1: too-large only=true"
			case name != "string" && name != "array" && !strings.HasPrefix(name, "bad"):
				want = fmt.Sprintf("1: %s id= at=", rec)
			}
			steps := walkBytes(t, doc, limit)
			if len(steps) != 4 || steps[1].String() != want || steps[2].raw != `{"b":2}` || !steps[3].end {
				t.Errorf("%s of %d: %.300s", name, size, text(steps))
			}
			checkSameHoweverRead(t, doc, limit, uint64(size))
		}
	}
	// Beside the records there is a limit, too.
	for _, doc := range []string{
		`{"x":"` + strings.Repeat("x", limit) + `","Records":[]}`,
		`{"Records":[{}],"x":"` + strings.Repeat("x", limit+slack) + `"}`,
	} {
		steps := walkBytes(t, []byte(doc), limit)
		if s := steps[len(steps)-1]; s.reason != record.NotJSON || !errors.Is(s.err, longMember) {
			t.Errorf("%.30s: %v", doc, text(steps))
		}
		checkSameHoweverRead(t, []byte(doc), limit, 1)
	}
}

// The window grows for a long record, and no further than it must.
func TestInvariant8_Window(t *testing.T) {
	const limit = 100_000
	rec := func(n int) string { return `{"a":"` + strings.Repeat("x", n-8) + `"}` }
	doc := []byte("[" + strings.Join([]string{rec(limit / 2), rec(limit), rec(3 * limit), `{"b":2}`}, ",") + "]")
	if steps := walkBytes(t, doc, limit); len(steps) != 5 || len(steps[1].raw) != limit || steps[2].reason != record.TooLarge {
		t.Fatalf("%.300s", text(steps))
	}
	checkSameHoweverRead(t, doc, limit, 1)
}

// An endless record is passed over in bounded memory.
func TestInvariant8_EndlessRecord(t *testing.T) {
	const limit = 4096
	var s Splitter
	src := io.MultiReader(strings.NewReader(`[{"a":"`), io.LimitReader(filler('x'), 8<<20), strings.NewReader(`"},{"b":2}]`))
	s.ResetReader(src, limit)
	steps := walk(t, &s)
	if got, want := text(steps), "0: too-large only=true\n1: {\"b\":2} id= at=\nend\n"; got != want {
		t.Fatalf("got %s want %s", got, want)
	}
	if cap(s.win.own) > limit+slack {
		t.Fatalf("window of %d bytes", cap(s.win.own))
	}
}

type filler byte

func (f filler) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(f)
	}
	return len(b), nil
}

func TestErrorSaysWhere(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"Records":[`)
	for range 50 {
		b.WriteString(`{"secret":"hunter2"},`)
	}
	at := b.Len() + len(`{"secret":`)
	b.WriteString(`{"secret":hunter2]`)
	steps := walkBytes(t, []byte(b.String()), 1<<20)
	last := steps[len(steps)-1]
	e, ok := errors.AsType[*Error](last.err)
	if !ok || e.Record != 50 || e.Offset != int64(at) || e.RecordOnly || !errors.Is(e, syntax) {
		t.Fatalf("%+v", e)
	}
	if want := fmt.Sprintf("reading record 50 at inflated byte %d: this is not valid JSON", at); e.Error() != want {
		t.Errorf("%q, want %q", e, want)
	}
	// In a second window the offset is still that of the object.
	doc := append(sampleObject(300), 'x')
	var s Splitter
	s.ResetReader(bytes.NewReader(doc), 1<<20)
	steps = walk(t, &s)
	if e, ok := errors.AsType[*Error](steps[len(steps)-1].err); !ok || e.Offset != int64(len(doc)-1) || e.Record != 300 {
		t.Errorf("%+v", e)
	}
}

func TestSplitterReaderError(t *testing.T) {
	broken := errors.New("connection reset")
	for _, cut := range []int{0, 5, 12, 19, 20, 25} {
		data := `{"Records":[{"a":1},{"b":2}]}`
		var s Splitter
		s.ResetReader(io.MultiReader(strings.NewReader(data[:cut]), iotest.ErrReader(broken)), 1<<20)
		steps := walk(t, &s)
		if last := steps[len(steps)-1]; last.err != broken {
			t.Errorf("cut at %d: %v", cut, last.err)
		}
		if want := strings.Count(data[:cut], "}"); len(steps)-1 != want {
			t.Errorf("cut at %d: %d records, want %d", cut, len(steps)-1, want)
		}
	}
	var s Splitter
	s.ResetReader(&pieces{}, 10)
	s.ResetReader(idle{}, 10)
	if _, err := s.Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
	s.ResetReader(io.MultiReader(strings.NewReader(`{"Records":[{}`), iotest.ErrReader(&Error{Reason: record.Corrupt, Record: -1})), 10)
	steps := walk(t, &s)
	if last := steps[len(steps)-1]; last.reason != record.Corrupt || last.index != 1 {
		t.Errorf("%+v", last)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// A splitter that is used again remembers nothing and allocates nothing.
func TestSplitterUsedAgain(t *testing.T) {
	var s Splitter
	for _, c := range splits {
		s.ResetReader(strings.NewReader(c.in), 1<<20)
		if got, want := text(walk(t, &s)), text(walkBytes(t, []byte(c.in), 1<<20)); got != want {
			t.Errorf("%s by reader:\n got %s\nwant %s", c.name, got, want)
		}
		s.Reset([]byte(c.in), 1<<20)
		if got, want := text(walk(t, &s)), text(walkBytes(t, []byte(c.in), 1<<20)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
	data := sampleObject(200)
	r := bytes.NewReader(nil)
	buf, recs := make([]byte, 0, 64<<10), make([]record.Record, 0, 100)
	if n := testing.AllocsPerRun(5, func() {
		r.Reset(data)
		s.ResetReader(r, 1<<20)
		for err := error(nil); err == nil; {
			_, _, err = s.Fill(buf, recs)
		}
		s.Reset(data, 1<<20)
		for err := error(nil); err == nil; {
			_, err = s.Next()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// oracleSplit is what jsontext makes of an object: its elements, and whether
// the whole of it is well-formed, but for the UTF-8 of strings.
func oracleSplit(data []byte) (elements []jsontext.Value, ok bool) {
	d := jsontext.NewDecoder(bytes.NewReader(data), oracleOptions...)
	found := false
	array := func() {
		found = true
		_, _ = d.ReadToken()
		for d.PeekKind() != ']' {
			v, err := d.ReadValue()
			if err != nil {
				return
			}
			elements = append(elements, v.Clone())
		}
		_, _ = d.ReadToken()
	}
	switch d.PeekKind() {
	case '[':
		array()
	case '{':
		_, _ = d.ReadToken()
		for d.PeekKind() == '"' {
			name, err := d.ReadValue()
			if err != nil || !validUTF8(name) {
				return elements, false
			}
			isRecords := string(name) == `"Records"`
			switch kind := d.PeekKind(); {
			case isRecords && kind == '[':
				array()
			case isRecords && kind != 'n':
				return elements, false
			default:
				v, err := d.ReadValue()
				if err != nil || !validUTF8(v) {
					return elements, false
				}
				found = found || isRecords
			}
		}
		if _, err := d.ReadToken(); err != nil {
			return elements, false
		}
	}
	_, err := d.ReadToken()
	return elements, found && errors.Is(err, io.EOF)
}

func validUTF8(b []byte) bool { return bytes.Equal(bytes.ToValidUTF8(b, nil), b) }

// naiveCompact is compact, byte by byte.
func naiveCompact(b []byte) string {
	var out, run []byte
	quoted, escaped := false, false
	flush := func() {
		if !bytes.ContainsAny(run, "\r\n") {
			out = append(out, run...)
		}
		run = nil
	}
	for _, c := range b {
		if !quoted && strings.IndexByte(" \t\r\n", c) >= 0 {
			run = append(run, c)
			continue
		}
		flush()
		out = append(out, c)
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		}
	}
	flush()
	return string(out)
}

// checkSplit holds a splitter against jsontext.
func checkSplit(t interface {
	Helper()
	Fatalf(string, ...any)
}, data []byte,
) {
	t.Helper()
	const limit = 300
	steps := walkBytes(t, data, limit)
	elements, ok := oracleSplit(data)
	var want []step
	for i, v := range elements {
		switch id, alt, at := oracleMembers(v); {
		case len(v) > limit:
			want = append(want, step{index: i, reason: record.TooLarge, only: true})
		case v.Kind() != '{' || !validUTF8(v):
			want = append(want, step{index: i, reason: record.UnreadableRecord, only: true})
		default:
			if id == "" {
				id = alt
			}
			want = append(want, step{index: i, raw: naiveCompact(v), id: id, at: at})
		}
	}
	switch last := steps[len(steps)-1]; {
	case ok:
		// A member beside Records over the limit is the one thing that
		// jsontext has no word for.
		if want = append(want, step{end: true}); text(steps) != text(want) && !errors.Is(last.err, longMember) {
			t.Fatalf("%q:\n got %s\nwant %s", data, text(steps), text(want))
		}
	case last.end && !slices.ContainsFunc(steps, func(s step) bool { return s.only }):
		t.Fatalf("%q: jsontext refuses it, but it gave\n%s", data, text(steps))
	default:
		// Up to where jsontext stops, both see the same. What a splitter finds
		// behind a record that it passed over must still be a record.
		for i, s := range steps {
			if s.raw == "" {
				continue
			}
			if i < len(want) && s.String() != want[i].String() {
				t.Fatalf("%q: record %d\n got %s\nwant %s", data, i, s, want[i])
			}
			if v, ok := oracleValue([]byte(s.raw)); !ok || string(v) != s.raw || v.Kind() != '{' || strings.ContainsAny(s.raw, "\r\n") {
				t.Fatalf("%q: record %d goes out as %q", data, i, s.raw)
			}
		}
	}
	checkSameHoweverRead(t, data, limit, uint64(len(data)))
}

func TestSplitterProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawJSON(t, 0)
		if rapid.IntRange(0, 3).Draw(t, "enveloped") > 0 {
			var parts []string
			for range rapid.IntRange(0, 4).Draw(t, "records") {
				parts = append(parts, drawJSON(t, 1))
			}
			in = "[" + strings.Join(parts, rapid.SampledFrom([]string{",", " ,\n"}).Draw(t, "comma")) + "]"
			if rapid.Bool().Draw(t, "in an object") {
				in = `{"x":` + drawJSON(t, 4) + `,"Records":` + in + `,"Records":null,"eventID":"no"}`
			}
		}
		checkSplit(t, damage(t, in))
	})
}

func TestSplitterAgreesWithJSONText(t *testing.T) {
	for _, c := range splits {
		checkSplit(t, []byte(c.in))
	}
	for _, g := range grammar {
		checkSplit(t, []byte(g))
		checkSplit(t, []byte(`{"Records":[`+g+`]}`))
		checkSplit(t, []byte(`{"Records":[{"a":`+g+`},{}]}`))
	}
}

func FuzzSplit(f *testing.F) {
	for _, c := range splits {
		f.Add([]byte(c.in))
	}
	for _, g := range grammar {
		f.Add([]byte(`{"Records":[{"a":` + g + `},{}]}`))
	}
	f.Add([]byte(`{"Records":[` + sampleRecord(1) + `]}`))
	f.Fuzz(func(t *testing.T, data []byte) { checkSplit(t, data) })
}
