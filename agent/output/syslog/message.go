package syslog

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// facilities are those of RFC 5424 section 6.2.1, under their usual names.
var facilities = map[string]int{
	"kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7,
	"uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11, "ntp": 12, "audit": 13, "alert": 14, "clock": 15,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// severities are those of RFC 5424 section 6.2.1, under their usual names.
var severities = map[string]int{
	"emerg": 0, "alert": 1, "crit": 2, "err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7,
}

// formatter makes messages and frames. Not safe for concurrent use.
type formatter struct {
	prefix  []byte // <PRI>1 and a space
	names   []byte // hostname, app name, procid, each between spaces
	limit   int    // bytes of a message without its framing
	framing Framing

	buf []byte // the frame being made
	// The structured data but the id is the same for all records of an object,
	// and they come together.
	object *record.Object
	data   []byte
}

func newFormatter(pri int, hostname, appName string, limit int) *formatter {
	return &formatter{
		prefix: fmt.Appendf(nil, "<%d>1 ", pri),
		names:  fmt.Appendf(nil, " %s %s - ", header(hostname, 255), header(appName, 48)),
		limit:  limit,
	}
}

// countRoom is what is kept free before a message for the octet count: the
// digits of an int and a space.
const countRoom = 20

// frame returns r as one frame, which is valid until the next call. Or it
// returns why r can't be sent, with the kind that says so.
func (f *formatter) frame(r *record.Record) (frame []byte, why string, kind fault.Kind) {
	// Longer even without its header: don't copy it.
	if len(r.Raw) > f.limit {
		return nil, f.tooLong(len(r.Raw)), fault.TooLarge
	}
	b := append(f.buf[:0], "                    "...) // countRoom
	b = f.message(b, r)
	f.buf = b
	n := len(b) - countRoom
	if n > f.limit {
		return nil, f.tooLong(n), fault.TooLarge
	}
	switch f.framing {
	case OctetCounting:
		var count [countRoom]byte
		c := append(strconv.AppendInt(count[:0], int64(n), 10), ' ')
		start := countRoom - len(c)
		copy(b[start:], c)
		return b[start:], "", 0
	case LF:
		// The rest of the message can't hold one, so this guards the record.
		if bytes.IndexByte(b[countRoom:], '\n') >= 0 {
			return nil, "holds a line break", fault.Refused
		}
		f.buf = append(b, '\n')
		return f.buf[countRoom:], "", 0
	}
	return b[countRoom:], "", 0
}

func (f *formatter) tooLong(n int) string {
	return fmt.Sprintf("longer than max_message: %d bytes, %d allowed", n, f.limit)
}

// message appends r as a message (RFC 5424 section 6). There is no BOM before
// the record: with one its bytes would not be CloudTrail's, and the receivers
// that know JSON would stumble over it.
func (f *formatter) message(b []byte, r *record.Record) []byte {
	b = append(b, f.prefix...)
	b = timestamp(b, r.Time())
	b = append(b, f.names...)
	b = append(b, header(r.Object.LogType, 32)...)
	b = append(b, ` [trailpoll@32473 id="`...)
	b = value(b, r.Identity())
	b = append(b, '"')
	if f.object != r.Object || f.data == nil {
		f.object, f.data = r.Object, structured(f.data[:0], r.Object)
	}
	b = append(b, f.data...)
	return append(b, r.Raw...)
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

// structured appends the structured data from behind the id up to the space
// before the record.
func structured(b []byte, o *record.Object) []byte {
	for _, p := range [...]struct{ name, value string }{
		{"account", o.Account}, {"region", o.Region}, {"bucket", o.Bucket}, {"key", o.Key},
	} {
		b = param(b, p.name, p.value)
	}
	b = append(b, ']')
	if len(o.Labels) > 0 {
		b = append(b, "[labels@32473"...)
		for _, name := range slices.Sorted(maps.Keys(o.Labels)) {
			b = param(b, paramName(name), o.Labels[name])
		}
		b = append(b, ']')
	}
	return append(b, ' ')
}

func param(b []byte, name, val string) []byte {
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, `="`...)
	b = value(b, val)
	return append(b, '"')
}

// paramName makes an SD-NAME of s: 1 to 32 printable ASCII characters other
// than = ] " and space (RFC 5424 section 6.3.3).
func paramName(s string) string {
	out := []byte(header(s, 32))
	for i, c := range out {
		if c == '=' || c == ']' || c == '"' {
			out[i] = '_'
		}
	}
	return string(out)
}

// header makes a header field of s: at most most characters of printable ASCII
// without the space, each other byte replaced by an underscore; the NILVALUE
// for nothing (RFC 5424 section 6.2).
func header(s string, most int) string {
	if s == "" {
		return "-"
	}
	s = s[:min(len(s), most)]
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			out := []byte(s)
			for j, c := range out {
				if c <= ' ' || c >= 0x7f {
					out[j] = '_'
				}
			}
			return string(out)
		}
	}
	return s
}

// value appends s as a PARAM-VALUE: " \ ] escaped (RFC 5424 section 6.3.3), and
// what is no printable text (control characters, line and paragraph separators,
// bytes that are no UTF-8) written as Go writes it in a string: \n, \x00. Thus
// nothing in a key can end the value, the message or a line.
func value(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\' || c == ']':
			b = append(b, '\\', c)
			i++
		case c >= ' ' && c < 0x7f:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\\x`...)
				b = append(b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
			case unicode.IsPrint(r):
				b = append(b, s[i:i+n]...)
			default:
				q := strconv.QuoteRune(r)
				b = append(b, '\\')
				b = append(b, q[1:len(q)-1]...)
			}
			i += n
		}
	}
	return b
}
