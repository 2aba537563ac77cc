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
	f := newFormatter(134, "host\nname", "app name", 4<<20)
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

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "a\nb", `"]\`, "\xff", "\u2028", "%", "\x00", "é"} {
		f.Add(s, s, s, s, "2026-11-01T09:50:00Z")
	}
	f.Fuzz(func(t *testing.T, bucket, key, logType, label, at string) {
		fm := newFormatter(0, key, label, 4<<20)
		fm.framing = OctetCounting
		r := record.Record{
			Object: &record.Object{Bucket: bucket, Key: key, LogType: logType, Labels: map[string]string{label: key}},
			Raw:    []byte(`{}`), EventTime: []byte(at), EventID: []byte(label),
		}
		frame, why, _ := fm.frame(&r)
		if why != "" {
			t.Skip(why)
		}
		_, frame, _ = bytes.Cut(frame, []byte(" "))
		m, err := parseMessage(frame)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.msg) != "{}" || len(m.params["trailpoll@32473/id"]) != 1 || len(m.params["trailpoll@32473/key"]) != 1 {
			t.Fatalf("%+v", m)
		}
	})
}

// Printable text comes back as it went in.
func TestValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[ -~éΩ😀]{0,40}`).Draw(t, "value")
		f := newFormatter(0, "h", "a", 1<<20)
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
		f := newFormatter(134, "h", "a", 1<<20)
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
	f := newFormatter(134, "h", "a", 1<<20)
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
		"transport":           {Transport: "relp", Addresses: []string{"h:1"}},
		"no meaning over":     {Transport: UDP, Framing: LF, Addresses: []string{"h:1"}},
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
	f := newFormatter(134, "host", "cloudtrail", 64<<10)
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
