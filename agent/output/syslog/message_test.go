package syslog

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Whatever a record's surroundings hold, it stays one message, whose fields can
// be read back.
func TestInvariant11_OneMessage(t *testing.T) {
	f := newFormatter(RFC5424, 134, "host\nname", "app name", 4<<20)
	f.framing = LF
	for _, r := range outputtest.OddRecords() {
		frame, why, _ := f.frame(&r)
		if why != "" {
			t.Fatalf("refused: %s", why)
		}
		m, err := parseMessage(frame[:len(frame)-1])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.msg, r.Raw) || m.host != "host_name" || m.app != "app_name" || m.procid != "-" || m.pri != 134 {
			t.Fatalf("%+v", m)
		}
	}
}

// The same with RFC 3164, where nothing of the surroundings goes out.
func TestInvariant11_OneMessageRFC3164(t *testing.T) {
	f := newFormatter(RFC3164, 134, "host\nname <1>", "app[1]: \n<134>", 4<<20)
	for _, r := range outputtest.OddRecords() {
		frame, why, _ := f.frame(&r)
		if why != "" {
			t.Fatalf("refused: %s", why)
		}
		m, err := parseBSD(frame)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.msg, r.Raw) || m.host != "host_name__1_" || m.app != "app_1_____134_" || m.pri != 134 {
			t.Fatalf("%+v", m)
		}
	}
}

// fixed renders every record as the same text, or as an error.
type fixed struct {
	text string
	err  error
	max  int // the last that was asked for
}

func (x *fixed) Append(dst []byte, _ *record.Record, most int) ([]byte, error) {
	x.max = most
	if x.err != nil {
		return nil, x.err
	}
	return append(dst, x.text...), nil
}

// What is sent is what the renderer makes, in the room that the header leaves.
func TestRender(t *testing.T) {
	r := outputtest.Numbered("n", 1)[0]
	for _, style := range []MessageFormat{RFC5424, RFC3164} {
		x := &fixed{text: `{"rendered":1}`}
		f := newFormatter(style, 134, "h", "a", 1000)
		f.render = x
		for range 2 { // the buffer is used again
			frame, why, _ := f.frame(&r)
			if why != "" {
				t.Fatal(why)
			}
			m, err := parse(style, frame)
			if err != nil || string(m.msg) != x.text || x.max != 1000-(len(frame)-len(x.text)) {
				t.Fatalf("%s: %q, room %d: %v", style, frame, x.max, err)
			}
		}
		for _, c := range []struct {
			text string
			err  error
			kind fault.Kind
			why  string
		}{
			{text: strings.Repeat("x", 1000), kind: fault.TooLarge, why: "max_message"}, // against the contract
			{text: "a\nb", kind: fault.Refused, why: "line break"},
			{err: &fault.Error{Kind: fault.TooLarge, Op: "reducing"}, kind: fault.TooLarge, why: "reducing"},
			{err: &fault.Error{Kind: fault.Refused, Op: "translating"}, kind: fault.Refused, why: "translating"},
		} {
			x.text, x.err = c.text, c.err
			frame, why, kind := f.frame(&r)
			if frame != nil || kind != c.kind || !strings.Contains(why, c.why) {
				t.Errorf("%s: %q, %v", style, why, kind)
			}
		}
		// A header that leaves no room must not ask for any: 0 is no limit.
		x.text, x.err, x.max = "x", nil, -1
		f.limit = 10
		if _, why, kind := f.frame(&r); why == "" || kind != fault.TooLarge || x.max != -1 {
			t.Errorf("%s: %q, %v, room %d", style, why, kind, x.max)
		}
	}
}

// CEF begins where the tag would be, and only with RFC 3164.
func TestCEFTakesTheTagsPlace(t *testing.T) {
	r := outputtest.Numbered("n", 1)[0]
	x := &fixed{text: "CEF:0|Amazon|CloudTrail|1|x|y|3|"}
	f := newFormatter(RFC3164, 134, "h", "app", 1000)
	f.render, f.framing = x, OctetCounting
	frame, why, _ := f.frame(&r)
	if want := "55 <134>Nov  1 09:50:00 h " + x.text; why != "" || string(frame) != want {
		t.Errorf("%q, want %q: %s", frame, want, why)
	}
	f.style = RFC5424
	if frame, _, _ = f.frame(&r); !bytes.HasSuffix(frame, []byte("] "+x.text)) {
		t.Errorf("%q", frame)
	}
}

// What is copied is a time, to the second and the day.
func TestPlainTime(t *testing.T) {
	for at, want := range map[string]bool{
		"2026-11-01T09:50:00Z": true, "2024-02-29T23:59:59Z": true, "0000-01-01T00:00:00Z": true,
		"2026-02-29T00:00:00Z": false, "2026-04-31T00:00:00Z": false, "2026-12-32T00:00:00Z": false, "2026-12-00T00:00:00Z": false,
		"2026-00-01T00:00:00Z": false, "2026-13-01T00:00:00Z": false, "2026-11-01T24:00:00Z": false, "2026-11-01T00:60:00Z": false,
		"2026-11-01T23:59:60Z": false, "2026-11-01t00:00:00Z": false, "2026-11-01T00:00:00.Z": false, "": false,
	} {
		if _, got := plainTime([]byte(at)); got != want {
			t.Errorf("%q: %v", at, got)
		}
	}
}

// Times that are copied are those that would have been made, whatever the text.
func TestTimesCopied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.OneOf(
			rapid.StringMatching(`[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z`),
			rapid.StringMatching(`20[0-9]{2}-(02|04|12)-(28|29|3[01])T2[0-4]:59:(59|60)Z`),
			rapid.StringMatching(`2026-11-01T09:50:00(\.[0-9]{1,9})?(Z|z|\+02:00)`),
			rapid.String(),
		).Draw(t, "time")
		stamp := time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC)
		r := record.Record{Object: &record.Object{Stamp: stamp}, EventTime: []byte(at)}
		if got, want := string(appendTime(nil, &r)), string(timestamp(nil, r.Time())); got != want {
			t.Errorf("%q: %s, want %s", at, got, want)
		}
		if got, want := string(appendBSDTime(nil, &r)), r.Time().Format(time.Stamp); got != want {
			t.Errorf("%q: %s, want %s", at, got, want)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "a\nb", `"]\`, "\xff", "\u2028", "%", "\x00", "é", ": ", "a: <1>"} {
		f.Add(s, s, s, s, "2026-11-01T09:50:00Z")
	}
	f.Fuzz(func(t *testing.T, bucket, key, logType, label, at string) {
		r := record.Record{
			Object: &record.Object{Bucket: bucket, Key: key, LogType: logType, Labels: map[string]string{label: key}},
			Raw:    []byte(`{}`), EventTime: []byte(at), EventID: []byte(label),
		}
		for _, style := range []MessageFormat{RFC5424, RFC3164} {
			fm := newFormatter(style, 0, key, label, 4<<20)
			fm.framing = OctetCounting
			frame, why, _ := fm.frame(&r)
			if why != "" {
				t.Skip(why)
			}
			_, frame, _ = bytes.Cut(frame, []byte(" "))
			m, err := parse(style, frame)
			if err != nil {
				t.Fatal(err)
			}
			if string(m.msg) != "{}" || style == RFC5424 && (len(m.params["trailpoll@32473/id"]) != 1 || len(m.params["trailpoll@32473/key"]) != 1) {
				t.Fatalf("%+v", m)
			}
		}
	})
}

// Printable text comes back as it went in.
func TestValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[ -~éΩ😀]{0,40}`).Draw(t, "value")
		f := newFormatter(RFC5424, 0, "h", "a", 1<<20)
		r := record.Record{Object: &record.Object{Key: s, Bucket: "b"}, Raw: []byte(`{}`)}
		frame, _, _ := f.frame(&r)
		m, err := parseMessage(frame)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.params["trailpoll@32473/key"][0]; got != s {
			t.Fatalf("%q, want %q", got, s)
		}
	})
}

func TestTimestamp(t *testing.T) {
	for want, at := range map[string]time.Time{
		"2026-11-01T09:50:00Z":        time.Date(2026, 11, 1, 9, 50, 0, 0, time.UTC),
		"2026-11-01T09:50:00.123456Z": time.Date(2026, 11, 1, 9, 50, 0, 123456789, time.UTC),
		"2026-11-01T09:50:00.5Z":      time.Date(2026, 11, 1, 11, 50, 0, 5e8, time.FixedZone("", 7200)),
		"-":                           {},
	} {
		if got := string(timestamp(nil, at)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, at := range []time.Time{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got := string(timestamp(nil, at)); got != "-" {
			t.Errorf("year %d: %s", at.Year(), got)
		}
	}
}

// The limit is that of the message, to the byte, without its framing.
func TestLimit(t *testing.T) {
	for _, framing := range []Framing{OctetCounting, LF, ""} {
		f := newFormatter(RFC5424, 134, "h", "a", 1<<20)
		f.framing = framing
		r := record.Record{Object: &record.Object{}, Raw: []byte(`{"x":"` + strings.Repeat("y", 5000) + `"}`)}
		f.framing = ""
		frame, _, _ := f.frame(&r)
		whole := len(frame)
		f.framing = framing
		f.limit = whole
		if _, why, _ := f.frame(&r); why != "" {
			t.Errorf("%s: at the limit: %s", framing, why)
		}
		f.limit = whole - 1
		if _, why, kind := f.frame(&r); why == "" || kind != fault.TooLarge {
			t.Errorf("%s: a byte over the limit: %q, %v", framing, why, kind)
		}
	}
}

// Records of different objects don't get each other's structured data.
func TestObjectsApart(t *testing.T) {
	f := newFormatter(RFC5424, 134, "h", "a", 1<<20)
	for _, key := range []string{"one", "two", "two", "", "one"} {
		frame, _, _ := f.frame(&record.Record{Object: &record.Object{Key: key}, Raw: []byte(`{}`)})
		m, err := parseMessage(frame)
		if err != nil || m.params["trailpoll@32473/key"][0] != key {
			t.Fatalf("%+v, %v", m, err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"no address":          {Transport: TCP},
		"not host:port":       {Transport: TCP, Addresses: []string{"host"}},
		"transport":           {Transport: "x", Addresses: []string{"h:1"}},
		"no meaning over":     {Transport: UDP, Framing: LF, Addresses: []string{"h:1"}},
		"message_format":      {Transport: TCP, MessageFormat: "x", Addresses: []string{"h:1"}},
		"over relp":           {Transport: RELP, Framing: LF, Addresses: []string{"h:1"}},
		"framing \"x\"":       {Transport: TCP, Framing: "x", Addresses: []string{"h:1"}},
		"facility":            {Transport: TCP, Facility: "x", Addresses: []string{"h:1"}},
		"severity":            {Transport: TCP, Severity: "x", Addresses: []string{"h:1"}},
		"can't be negative":   {Transport: TCP, MaxMessage: -1, Addresses: []string{"h:1"}},
		"reading the trusted": {Transport: TLS, Addresses: []string{"h:1"}, TLS: missingCA},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	f := newFormatter(RFC5424, 134, "host", "cloudtrail", 64<<10)
	f.framing = OctetCounting
	r := outputtest.Numbered("x", 1)[0]
	r.Raw = []byte(`{"x":"` + strings.Repeat("y", 1400) + `"}`)
	b.SetBytes(int64(len(r.Raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, why, _ := f.frame(&r); why != "" {
			b.Fatal(why)
		}
	}
}

// Surroundings of up to a megabyte make one message or none, never a part of one.
func TestInvariant11_HugeSurroundings(t *testing.T) {
	for _, huge := range []string{strings.Repeat("a\n\"]\\", 50_000), strings.Repeat("\xff", 1<<18), strings.Repeat("9 <1>1 ", 150_000)} {
		r := outputtest.Numbered("n", 1)[0]
		r.EventID = []byte(huge)
		r.Object = &record.Object{
			Bucket: huge, Key: huge, Account: huge, Region: huge, LogType: huge, Labels: map[string]string{huge: huge},
		}
		for _, style := range []MessageFormat{RFC5424, RFC3164} {
			for _, framing := range []Framing{OctetCounting, LF} {
				f := newFormatter(style, 134, huge, huge, 64<<20)
				f.framing = framing
				frame, why, _ := f.frame(&r)
				if why != "" {
					t.Fatal(why)
				}
				if framing == OctetCounting {
					_, frame, _ = bytes.Cut(frame, []byte(" "))
				}
				m, err := parse(style, bytes.TrimSuffix(frame, []byte("\n")))
				if err != nil || !bytes.Equal(m.msg, r.Raw) {
					t.Fatalf("%s %s: %.300q: %v", style, framing, m.msg, err)
				}
				if f.limit = 64 << 10; style == RFC5424 {
					if frame, why, kind := f.frame(&r); frame != nil || why == "" || kind != fault.TooLarge {
						t.Errorf("%s %s: %q, %v", style, framing, why, kind)
					}
				}
			}
		}
	}
}
