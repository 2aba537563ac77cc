package config

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0, "0": 0, "0d": 0,
		"250ms": 250 * time.Millisecond, "-7d": -7 * day, "-1d1h": -25 * time.Hour, "1.5h": 90 * time.Minute,
	} {
		if got, err := ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "d", "1", "30", "1.5d", "--1s", "1d-1s", "-1d-1s", "1d+1s", "+1d", "1h1d",
		"1D", " 1s", "1w", "106752d", "106751d23h59m59s", "9223372036854775808d", "3000000h"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"64MiB": 64 << 20, "1MB": 1e6, "1KB": 1000, "1kB": 1000, "3 GiB": 3 << 30, "0B": 0, "2TiB": 2 << 40, "65507B": 65507,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "64", "MiB", "-1MiB", "+1MiB", "1.5MiB", "1mib", "1 M", "1Mi", "8388608TiB", "1  MiB", "0x1B"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// What String writes is read back as the same, and twice gives the same text.
func TestValuesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(-int64(maxAgo), int64(maxAgo)).Draw(t, "d"))
		if rapid.Bool().Draw(t, "whole") {
			d -= d % Duration(time.Hour)
		}
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Fatalf("%d as %q came back as %d, %v", d, d, back, err)
		}
		s := Size(rapid.Int64Range(0, 1<<62).Draw(t, "s"))
		s -= s % rapid.SampledFrom([]Size{1, KiB, MiB, GiB}).Draw(t, "unit")
		if back, err := ParseSize(s.String()); err != nil || back != s {
			t.Fatalf("%d as %q came back as %d, %v", s, s, back, err)
		}
	})
}

func TestDurationString(t *testing.T) {
	for text, d := range map[string]time.Duration{
		"30d": 30 * day, "1d": day, "36h": 36 * time.Hour, "1h30m": 90 * time.Minute, "1m": time.Minute, "0s": 0,
		"10s": 10 * time.Second, "20m": 20 * time.Minute, "10h": 10 * time.Hour, "1h0m5s": time.Hour + 5*time.Second,
	} {
		if got := Duration(d).String(); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
}

func TestStart(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.FixedZone("", 3600))
	utc := func(y int, m time.Month, d, h int) time.Time { return time.Date(y, m, d, h, 0, 0, 0, time.UTC) }
	for text, want := range map[string]time.Time{
		"now": utc(2026, 11, 20, 11), "-24h": utc(2026, 11, 19, 11), "-7d": utc(2026, 11, 13, 11),
		"2026-11-01": utc(2026, 11, 1, 0), "2026-11-01T06:00:00+02:00": utc(2026, 11, 1, 4),
	} {
		s, err := ParseStart(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got, err := s.Resolve(now); err != nil || got != want || s.String() != text {
			t.Errorf("%q: %v, %v (%q); want %v", text, got, err, s, want)
		}
	}
	for _, text := range []string{"", "24h", "-", "-1", "+7d", "yesterday", "2026-13-01", "2026-11-01 06:00", "-40000d", "0001-01-01"} {
		if s, err := ParseStart(text); err == nil {
			t.Errorf("%q is taken for %v", text, s)
		}
	}
	if _, err := (Start{}).Resolve(now); err == nil {
		t.Error("the zero Start resolves")
	}
	if s, err := ParseStart("-24h"); err != nil || s != DefaultSource().Start {
		t.Errorf("the default is %v, not -24h", DefaultSource().Start)
	}
}

func FuzzValues(f *testing.F) {
	for _, s := range []string{"30d", "-7d", "64MiB", "2026-11-01", "1d1h", "now"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDuration(s); err == nil {
			if back, err := ParseDuration(d.String()); err != nil || back != d {
				t.Fatalf("%q: %v came back as %v, %v", s, d, back, err)
			}
		}
		if z, err := ParseSize(s); err == nil {
			if back, err := ParseSize(z.String()); err != nil || back != z || z < 0 {
				t.Fatalf("%q: %v came back as %v, %v", s, z, back, err)
			}
		}
		if b, err := ParseStart(s); err == nil {
			if at, err := b.Resolve(time.Unix(2e9, 0)); err != nil || at.IsZero() {
				t.Fatalf("%q: %v, %v", s, at, err)
			}
		}
	})
}
