package checkpoint

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// A position as it stands in keys of the file:
//
//	day   uint16  the folder's date, in days since 1970-01-01; 0 = not a date
//	form  uint16  how the rest is written
//	rest
//
// The canonical name
//
//	YYYY/MM/DD/<account>_<log type>_<region>_YYYYMMDDTHHmmZ_<16 of 0-9A-Za-z>.json.gz
//
// has the stamp's minute of the day as its form and 12 bytes of rest, six for
// each half of the 16 characters (62^8 < 2^48): 16 bytes for some 95. Every
// other position is written out behind formVerbatim. The writing is one to
// one. The store never reads a meaning into a position beyond this: what does
// not look like the canonical name only takes more room.
const (
	formVerbatim = 0xFFFF
	formOtherDay = 0x4000 // a uint16 with the stamp's own date follows
	formNoBar    = 0x2000 // no "_" before the 16 characters, as in old names
	minuteMask   = 0x07FF

	minutesPerDay = 24 * 60
	uniqueLen     = 16
	suffix        = ".json.gz"
)

// appendPosition appends pos, a position in s, as keys hold it.
func appendPosition(dst []byte, s *progress.Stream, pos string) []byte {
	day, ok := folderDay(pos)
	if !ok {
		dst = append(dst, 0, 0)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, day)
		if out, ok := appendCanonical(dst, day, s, pos[11:]); ok {
			return out
		}
	}
	dst = binary.BigEndian.AppendUint16(dst, formVerbatim)
	return append(dst, pos...)
}

// appendCanonical appends form and rest of a name in the folder of day, and
// reports whether the name is canonical.
func appendCanonical(dst []byte, day uint16, s *progress.Stream, name string) ([]byte, bool) {
	name, ok := cut(name, s.Account)
	if !ok {
		return dst, false
	}
	if name, ok = cut(name, s.LogType); !ok {
		return dst, false
	}
	if name, ok = cut(name, s.Region); !ok {
		return dst, false
	}
	// What is left is YYYYMMDDTHHmmZ[_]<unique>.json.gz.
	const stampLen = len("YYYYMMDDTHHmmZ")
	if len(name) < stampLen+uniqueLen+len(suffix) || name[8] != 'T' || name[13] != 'Z' {
		return dst, false
	}
	stampDay, ok := dayOf(name[0:4], name[4:6], name[6:8])
	if !ok {
		return dst, false
	}
	hour, ok1 := number(name[9:11])
	minute, ok2 := number(name[11:13])
	if !ok1 || !ok2 || hour > 23 || minute > 59 {
		return dst, false
	}
	form := uint16(hour*60 + minute)
	name = name[stampLen:]
	if name[0] == '_' {
		name = name[1:]
	} else {
		form |= formNoBar
	}
	if len(name) != uniqueLen+len(suffix) || name[uniqueLen:] != suffix {
		return dst, false
	}
	high, ok1 := base62(name[:8])
	low, ok2 := base62(name[8:uniqueLen])
	if !ok1 || !ok2 {
		return dst, false
	}
	if stampDay != day {
		dst = binary.BigEndian.AppendUint16(dst, form|formOtherDay)
		dst = binary.BigEndian.AppendUint16(dst, stampDay)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, form)
	}
	return appendUint48(appendUint48(dst, high), low), true
}

// errPosition: bytes that appendPosition never wrote.
var errPosition = errors.New("a position that was never written")

// parsePosition returns the position that appendPosition wrote as b.
func parsePosition(b []byte, s *progress.Stream) (string, error) {
	if len(b) < 4 {
		return "", errPosition
	}
	day, form, rest := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[4:]
	if form == formVerbatim {
		return string(rest), nil
	}
	stampDay := day
	if form&formOtherDay != 0 {
		if len(rest) < 2 {
			return "", errPosition
		}
		stampDay, rest = binary.BigEndian.Uint16(rest), rest[2:]
	}
	minute := int(form & minuteMask)
	if len(rest) != 12 || minute >= minutesPerDay || form&^(formOtherDay|formNoBar|minuteMask) != 0 {
		return "", errPosition
	}
	out := make([]byte, 0, 80+len(s.Region)+len(s.LogType))
	out = midnight(day).AppendFormat(out, "2006/01/02/")
	for _, part := range [...]string{s.Account, s.LogType, s.Region} {
		out = append(append(out, part...), '_')
	}
	stamp := midnight(stampDay).Add(time.Duration(minute) * time.Minute)
	out = stamp.AppendFormat(out, "20060102T1504Z")
	if form&formNoBar == 0 {
		out = append(out, '_')
	}
	out, ok1 := appendBase62(out, rest[:6])
	out, ok2 := appendBase62(out, rest[6:])
	if !ok1 || !ok2 {
		return "", errPosition
	}
	return string(append(out, suffix...)), nil
}

// folderDay returns the date of the folder that pos begins with, in days since
// 1970-01-01, and whether it begins with one from 1970-01-02 to 2149-06-06.
func folderDay(pos string) (uint16, bool) {
	if len(pos) < 11 || pos[4] != '/' || pos[7] != '/' || pos[10] != '/' {
		return 0, false
	}
	return dayOf(pos[0:4], pos[5:7], pos[8:10])
}

// dayOf returns a date of the calendar in days since 1970-01-01.
func dayOf(year, month, day string) (uint16, bool) {
	y, ok1 := number(year)
	m, ok2 := number(month)
	d, ok3 := number(day)
	if !ok1 || !ok2 || !ok3 || m < 1 || m > 12 || d < 1 || d > daysIn(y, m) {
		return 0, false
	}
	// Days from a civil date, with years that begin in March.
	if m <= 2 {
		y--
		m += 12
	}
	n := 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d - 1 - 719468
	if n < 1 || n > 0xFFFF {
		return 0, false
	}
	return uint16(n), true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// midnight returns the beginning of a day counted from 1970-01-01, UTC.
func midnight(day uint16) time.Time { return time.Unix(int64(day)*86400, 0).UTC() }

// cut takes part and the "_" behind it off the front of s.
func cut(s, part string) (string, bool) {
	n := len(part)
	if len(s) <= n || s[:n] != part || s[n] != '_' {
		return "", false
	}
	return s[n+1:], true
}

// number reads a decimal number of digits only.
func number(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int(c)
	}
	return n, true
}

// base62 reads 8 of 0-9A-Za-z as a number below 62^8. The digits ascend as
// their bytes do, so that numbers sort as S3 sorts the names.
func base62(s string) (uint64, bool) {
	var n uint64
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'A' && c <= 'Z':
			c -= 'A' - 10
		case c >= 'a' && c <= 'z':
			c -= 'a' - 36
		default:
			return 0, false
		}
		n = n*62 + uint64(c)
	}
	return n, true
}

// appendBase62 appends the 8 characters that base62 read as the 6 bytes b.
func appendBase62(dst, b []byte) ([]byte, bool) {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	var out [8]byte
	for i := 7; i >= 0; i-- {
		out[i] = digits[n%62]
		n /= 62
	}
	return append(dst, out[:]...), n == 0
}

func appendUint48(dst []byte, n uint64) []byte {
	return append(dst, byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
