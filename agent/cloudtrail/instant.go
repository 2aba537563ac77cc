package cloudtrail

import (
	"strings"
	"time"
)

// Instant returns the time at which a position, or a Floor, stands in the
// order of its stream: its stamp, or the nearer end of its folder's day where
// the stamp is of another day. A listing that starts after the Floor of an
// earlier instant comes past it.
func Instant(position string) (time.Time, bool) {
	if len(position) < dayLen {
		return time.Time{}, false
	}
	day, err := time.Parse("2006/01/02/", position[:dayLen])
	if err != nil {
		return time.Time{}, false
	}
	name := position[dayLen:]
	for range 3 { // account, log type, region
		_, rest, ok := strings.Cut(name, "_")
		if !ok {
			return time.Time{}, false
		}
		name = rest
	}
	if len(name) < stampLen {
		return time.Time{}, false
	}
	stamp, err := time.Parse("20060102T1504Z", name[:stampLen])
	if err != nil {
		return time.Time{}, false
	}
	last := day.Add(24*time.Hour - time.Minute)
	switch {
	case stamp.Before(day):
		return day, true
	case stamp.After(last):
		return last, true
	}
	return stamp, true
}
