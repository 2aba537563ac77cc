package cloudtrail

import (
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

const (
	dayLen   = len("2006/01/02/")
	stampLen = len("20060102T1504Z")
	suffix   = ".json.gz"
)

// ParsePosition reads the position of an object of stream s: its stamp (whole
// minutes, UTC) and what it is. The stamp is zero unless the class is Log. It
// allocates nothing.
//
// The day of the folder and of the name may differ: an object that CloudTrail
// delivers again, days later, may stand under either day. So may the account,
// log type and region of the name differ from those of the folder, as long as
// they have the right shape: to pass over an object because AWS named it in an
// unforeseen way would lose its records. All that is lost with such a name is
// its place in the order, so a sweep finds it and the tail may not.
//
// The unique part is anything without a "/".
func ParsePosition(s progress.Stream, position string) (time.Time, Class) {
	if strings.HasSuffix(position, "/") {
		return time.Time{}, Marker
	}
	if len(position) < dayLen {
		return time.Time{}, Foreign
	}
	day, name := position[:dayLen], position[dayLen:]
	year, ok1 := digits(day[0:4])
	month, ok2 := digits(day[5:7])
	dom, ok3 := digits(day[8:10])
	if !ok1 || !ok2 || !ok3 || day[4] != '/' || day[7] != '/' || day[10] != '/' || !isDate(year, month, dom) {
		return time.Time{}, Foreign
	}

	account, name, _ := strings.Cut(name, "_")
	logType, name, _ := strings.Cut(name, "_")
	region, name, _ := strings.Cut(name, "_")
	if account != s.Account && !IsAccount(account) {
		return time.Time{}, Foreign
	}
	if logType == typeDigest {
		return time.Time{}, Digest
	}
	if logType != s.LogType && !IsLogType(logType) {
		return time.Time{}, Foreign
	}
	if region != s.Region && !IsRegion(region) {
		return time.Time{}, Foreign
	}

	if len(name) < stampLen || !strings.HasSuffix(name[stampLen:], suffix) {
		return time.Time{}, Foreign
	}
	unique := strings.TrimPrefix(name[stampLen:len(name)-len(suffix)], "_")
	if unique == "" || strings.IndexByte(unique, '/') >= 0 {
		return time.Time{}, Foreign
	}
	return parseStamp(name[:stampLen])
}

// parseStamp reads YYYYMMDDTHHmmZ.
func parseStamp(s string) (time.Time, Class) {
	year, ok1 := digits(s[0:4])
	month, ok2 := digits(s[4:6])
	dom, ok3 := digits(s[6:8])
	hour, ok4 := digits(s[9:11])
	minute, ok5 := digits(s[11:13])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || s[8] != 'T' || s[13] != 'Z' ||
		!isDate(year, month, dom) || hour > 23 || minute > 59 {
		return time.Time{}, Foreign
	}
	return time.Date(year, time.Month(month), dom, hour, minute, 0, 0, time.UTC), Log
}

// digits reads a decimal number of digits only.
func digits(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// isDate reports whether there is such a day in the Gregorian calendar.
func isDate(year, month, day int) bool {
	if day < 1 {
		return false
	}
	switch month {
	case 1, 3, 5, 7, 8, 10, 12:
		return day <= 31
	case 4, 6, 9, 11:
		return day <= 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return day <= 29
		}
		return day <= 28
	}
	return false
}

// Floor returns the least string that begins a position of the stream with the
// stamp t (to the minute, rounded down) in the folder of its own day. It is
// itself no position, and less than all with that stamp or a later one, so a
// listing that starts after StreamPrefix + Floor(s, t) has them all. A time
// outside the years 0 to 9999 is taken to the nearer end of them.
func Floor(s progress.Stream, t time.Time) string {
	t = t.UTC()
	switch {
	case t.Year() < 0:
		t = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	case t.Year() > 9999:
		t = time.Date(9999, 12, 31, 23, 59, 0, 0, time.UTC)
	}
	b := make([]byte, 0, dayLen+len(s.Account)+len(s.LogType)+len(s.Region)+3+stampLen)
	b = t.AppendFormat(b, "2006/01/02/")
	b = append(b, s.Account...)
	b = append(b, '_')
	b = append(b, s.LogType...)
	b = append(b, '_')
	b = append(b, s.Region...)
	b = append(b, '_')
	b = t.AppendFormat(b, "20060102T1504Z")
	return string(b)
}
