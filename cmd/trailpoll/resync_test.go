package main

import (
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

func TestResyncWindow(t *testing.T) {
	now := time.Date(2026, 11, 20, 18, 15, 30, 0, time.UTC)
	for _, c := range []struct{ from, to, want string }{
		{"2026-11-03", "2026-11-03", "2026-11-03T00:00:00Z 2026-11-04T00:00:00Z"},
		{"2026-02-28", "2026-02-28", "2026-02-28T00:00:00Z 2026-03-01T00:00:00Z"},
		{"2026-11-03+01:00", "2026-11-03+01:00", "2026-11-02T23:00:00Z 2026-11-03T23:00:00Z"},
		{"2026-11-03T14:00", "2026-11-03 15:30", "2026-11-03T14:00:00Z 2026-11-03T15:30:00Z"},
		{"2026-11-03T14:00+01:00", "2026-11-03T14:00:30Z", "2026-11-03T13:00:00Z 2026-11-03T14:00:30Z"},
		{"-7d", "now", "2026-11-13T18:15:30Z 2026-11-20T18:15:30Z"},
		{" -36h", "2026-11-20T18:15", "2026-11-19T06:15:30Z 2026-11-20T18:15:00Z"},
		{"2026-11-19", "2026-11-20", "the window ends in the future: that day ends at 2026-11-21T00:00:00Z"},
		{"2026-11-19", "2026-11-20T18:16", "the window ends in the future, at 2026-11-20T18:16:00Z"},
		{"2026-11-19T10:00", "2026-11-19T10:00", "upside down"},
		{"2026-11-19", "2026-11-17", "upside down"},
		{"2013-11-12", "2013-12-01", "before CloudTrail's first day"},
		{"2026-02-30", "now", "--from: \"2026-02-30\" is neither"},
		{"yesterday", "now", "--from: \"yesterday\" is neither"},
		{"-7x", "now", "--from: \"-7x\" is neither"},
		{"now", "", "--from and --to"},
		{"", "now", "--from and --to"},
	} {
		f := resyncFlags{from: c.from, to: c.to}
		o, err := f.order(now)
		got := inUTC(o.From) + " " + inUTC(o.To)
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != c.want || err != nil && !strings.Contains(got, c.want) || (err == nil) != strings.Contains(c.want, "Z 2026") {
			t.Errorf("%q to %q: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

func FuzzParseWhen(f *testing.F) {
	for _, s := range []string{"2026-11-03", "2026-11-03T14:00+01:00", "now", "-36h", "-7d", "9999-12-31", "0000-01-01", "--1s", "-106752d"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 20, 18, 15, 30, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		at, isDay, err := parseWhen(s, now)
		if err != nil && (isDay || !strings.Contains(err.Error(), "neither")) {
			t.Errorf("%q: %v", s, err)
		}
		if err == nil && isDay && (at.Hour() != 0 || at.Minute() != 0) {
			t.Errorf("%q is a day that begins at %v", s, at)
		}
	})
}

func TestResyncLines(t *testing.T) {
	var b strings.Builder
	s := newResyncShow(&b, 3)
	now := time.Now()
	j := resyncJob{ID: 3, State: progress.ResyncRunning, Share: 0.123, Objects: 12345, Records: 678901, Passed: 7, Rate: 311.4, Left: 3723, Day: "2026-11-03"}
	s.show(&j, now)
	s.show(&j, now.Add(time.Second)) // too soon for another line
	j.Held = []string{"siem"}
	s.show(&j, now.Add(2*time.Second)) // but not to say that it waits
	s.end()
	want := "trailpoll: re-sync 3 is running: 12.3 %, 12,345 objects sent, 678,901 records, 7 settled before, 311 objects/s, 1h02m left, at 2026-11-03\n" +
		"trailpoll: re-sync 3 is running: 12.3 %, 12,345 objects sent, 678,901 records, 7 settled before, 311 objects/s, 1h02m left, at 2026-11-03, waiting for siem, held\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	for seconds, want := range map[float64]string{0.4: "0s", 59: "59s", 61: "1m01s", 3600: "1h00m", 86400 * 3: "3 days"} {
		if got := span(seconds); got != want {
			t.Errorf("%v seconds are %s, want %s", seconds, got, want)
		}
	}
}
