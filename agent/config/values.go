package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// Duration is a length of time, written in Go's form with days beside it:
// "30s", "1h30m", "30d", "1d12h".
type Duration time.Duration

// ParseDuration reads a duration. A day is 24 hours.
func ParseDuration(s string) (Duration, error) {
	rest, sign := s, time.Duration(1)
	if r, ok := strings.CutPrefix(rest, "-"); ok {
		rest, sign = r, -1
	}
	var sum time.Duration
	if days, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 63)
		if err != nil || n > uint64(math.MaxInt64/day) {
			return 0, errDuration
		}
		sum, rest = time.Duration(n)*day, after
	}
	if rest != "" || sum == 0 && !strings.Contains(s, "d") {
		// A second sign would be taken by the library: "--1s", "1d-1s".
		if strings.ContainsAny(rest, "+-") {
			return 0, errDuration
		}
		d, err := time.ParseDuration(rest)
		if err != nil || d > math.MaxInt64-sum {
			return 0, errDuration
		}
		sum += d
	}
	return Duration(sign * sum), nil
}

var errDuration = errors.New("not a duration")

// String returns the duration as it would be written: whole days as days, no
// empty parts.
func (d Duration) String() string {
	t := time.Duration(d)
	if t != 0 && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes, written with its unit: "64MiB", "1MB", "512B".
type Size int64

// The binary units.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

// units has the longer names first where one ends another.
var units = [...]struct {
	name  string
	bytes Size
}{
	{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// ParseSize reads a size: a whole number and its unit. A number without a unit
// is refused, because nobody can tell what it meant.
func ParseSize(s string) (Size, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
		if err != nil || n > uint64(math.MaxInt64/u.bytes) {
			return 0, errSize
		}
		return Size(n) * u.bytes, nil
	}
	return 0, errSize
}

var errSize = errors.New("not a size")

// String returns the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range units[:4] {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Start is from when a source is wanted. It keeps what was written, because it
// is resolved when the source is first seen, not when the file is read.
type Start struct {
	text string
	ago  time.Duration // with at zero
	at   time.Time
}

// maxAgo keeps a relative start within what a time can hold; S3 is younger.
const maxAgo = 36500 * day

// ParseStart reads a start: "now", a time before now ("-7d", "-24h"), a date
// (its first instant in UTC) or an RFC 3339 time.
func ParseStart(s string) (Start, error) {
	if s == "now" {
		return Start{text: s}, nil
	}
	if strings.HasPrefix(s, "-") {
		d, err := ParseDuration(s)
		if err != nil || time.Duration(-d) > maxAgo {
			return Start{}, errStart
		}
		return Start{text: s, ago: time.Duration(-d)}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil && !t.IsZero() {
			return Start{text: s, at: t.UTC()}, nil
		}
	}
	return Start{}, errStart
}

var errStart = errors.New("not a start")

func startAgo(d time.Duration) Start { return Start{text: "-" + hours(d), ago: d} }

func hours(d time.Duration) string { return strconv.FormatInt(int64(d/time.Hour), 10) + "h" }

// String returns the start as it was written.
func (s Start) String() string { return s.text }

// Resolve returns the instant that the start means when it is now, in UTC. The
// zero Start is an error.
func (s Start) Resolve(now time.Time) (time.Time, error) {
	switch {
	case s.text == "":
		return time.Time{}, fmt.Errorf("resolving the start of a source: %w", errStart)
	case !s.at.IsZero():
		return s.at, nil
	}
	return now.Add(-s.ago).UTC(), nil
}
