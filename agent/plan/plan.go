// Package plan says what listing a source will cost before it is paid for: from
// how often objects come to streams, and how often the agent lists, to
// requests a day and dollars a month. The agent's own cadence is here, too, so
// that what is planned and what is done are one thing.
//
// The package is pure: it reads no clock and no bucket. It imports nothing of
// ours but progress.
package plan

import (
	"sort"
	"time"
)

// Day is what rates are counted by; a month has MonthDays of them.
const (
	Day       = 24 * time.Hour
	MonthDays = 30
)

// Shortest and Longest are the least and the most that the configuration takes
// for refresh and idle_refresh.
const (
	Shortest = 100 * time.Millisecond
	Longest  = Day
)

// Hourly and Daily are how often a stream is swept: over the last day, and
// over the late horizon.
const (
	Hourly = time.Hour
	Daily  = Day
)

// Cadence returns how long after a listing of a stream the next one is due,
// jitter aside. quiet is how long ago its last new object was found; never
// says that none was found yet.
func Cadence(quiet time.Duration, never bool, refresh, idle time.Duration) time.Duration {
	if never {
		return idle
	}
	return min(max(quiet/4, refresh), idle)
}

// NearAt and NearDepth are how a stream is listed whose look-back takes more
// than one page: the whole look-back once in a NearAt-th of it, a NearDepth-th
// of it in between.
const (
	NearAt    = 4
	NearDepth = 6
)

// ladder holds when passes come after one that found something, as long as
// nothing more is found: the first at ladder.at[0] and so on, from the last on
// every ladder.idle.
type ladder struct {
	at   []time.Duration
	idle time.Duration
}

func newLadder(refresh, idle time.Duration) ladder {
	refresh = max(refresh, time.Millisecond)
	l := ladder{idle: max(idle, time.Millisecond), at: []time.Duration{0}}
	for quiet := time.Duration(0); ; {
		step := Cadence(quiet, false, refresh, l.idle)
		quiet += step
		l.at = append(l.at, quiet)
		if step >= l.idle {
			return l
		}
	}
}

// passes returns how many passes a gap between two arrivals costs, on average
// over where in the gap they fall. Jitter makes that even: a pass that finds
// an object comes late by some part of an interval, but so does the next, and
// between the two lies the gap. So the count is read off the ladder, linear
// between its steps. A gap shorter than the refresh shares its pass.
func (l ladder) passes(gap time.Duration) float64 {
	n := len(l.at) - 1
	if gap >= l.at[n] {
		return float64(n) + float64(gap-l.at[n])/float64(l.idle)
	}
	i := sort.Search(n, func(i int) bool { return l.at[i+1] > gap })
	return float64(i) + float64(gap-l.at[i])/float64(l.at[i+1]-l.at[i])
}
