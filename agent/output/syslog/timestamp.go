package syslog

import (
	"time"

	"github.com/trailpoll/trailpoll/agent/record"
)

// appendTime appends the record's time as RFC 5424 section 6.2.3 has it. As
// CloudTrail writes its times they are that already, and need to be neither
// read nor made: with every record that would be a twentieth of all work.
func appendTime(b []byte, r *record.Record) []byte {
	if _, ok := plainTime(r.EventTime); ok {
		return append(b, r.EventTime...)
	}
	return timestamp(b, r.Time())
}

// appendBSDTime appends the record's time as RFC 3164 section 4.1.2 has it, in
// UTC: no year, no fraction, and a space before a day of one digit.
func appendBSDTime(b []byte, r *record.Record) []byte {
	at := r.EventTime
	month, ok := plainTime(at)
	if !ok {
		return r.Time().UTC().AppendFormat(b, time.Stamp)
	}
	b = append(b, month.String()[:3]...)
	b = append(b, ' ')
	if at[8] == '0' {
		b = append(b, ' ', at[9])
	} else {
		b = append(b, at[8:10]...)
	}
	b = append(b, ' ')
	return append(b, at[11:19]...)
}

// plainTime reports whether at is a time of the form 2026-11-01T09:50:00Z, and
// its month.
func plainTime(at []byte) (month time.Month, ok bool) {
	const form = "0000-00-00T00:00:00Z"
	if len(at) != len(form) {
		return 0, false
	}
	for i, c := range at {
		if form[i] == '0' && (c < '0' || c > '9') || form[i] != '0' && c != form[i] {
			return 0, false
		}
	}
	two := func(i int) int { return int(at[i]-'0')*10 + int(at[i+1]-'0') }
	year, month, day := two(0)*100+two(2), time.Month(two(5)), two(8)
	if month < time.January || month > time.December || day < 1 || two(11) > 23 || two(14) > 59 || two(17) > 59 {
		return 0, false
	}
	// The day before the first of the next month is the last.
	if day > 28 && day > time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day() {
		return 0, false
	}
	return month, true
}

// timestamp appends t (RFC 5424 section 6.2.3): UTC, at most six digits of a
// second; the NILVALUE for a time that the format can't carry.
func timestamp(b []byte, t time.Time) []byte {
	t = t.UTC()
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return append(b, '-')
	}
	return t.AppendFormat(b, "2006-01-02T15:04:05.999999Z")
}
