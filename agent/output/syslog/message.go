package syslog

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

// MessageFormat is how a message is written.
type MessageFormat string

// The message formats.
const (
	RFC5424 MessageFormat = "rfc5424"
	RFC3164 MessageFormat = "rfc3164"
)

// Renderer makes of a record the text that is sent for it.
type Renderer interface {
	// Append appends r's text, of at most max bytes and without a line break.
	// It is called from one goroutine at a time. An error is of one of the
	// kinds fault.TooLarge and fault.Refused: that record can't be sent.
	Append(dst []byte, r *record.Record, max int) ([]byte, error)
}

// formatter makes messages and frames. Not safe for concurrent use.
type formatter struct {
	style  MessageFormat
	prefix []byte // <PRI>, with RFC 5424 its version and a space
	// names are the hostname, app name and procid, each between spaces; with RFC
	// 3164 the hostname between spaces and the tag.
	names   []byte
	tag     int // with RFC 3164: how many bytes of names the tag is
	limit   int // bytes of a message without its framing
	framing Framing
	render  Renderer // nil: the record as it is

	buf []byte // the frame being made
	// The structured data but the id is the same for all records of an object,
	// and they come together.
	object *record.Object
	data   []byte
}

func newFormatter(style MessageFormat, pri int, hostname, appName string, limit int) *formatter {
	f := &formatter{style: style, limit: limit}
	if style == RFC3164 {
		tag := bsdTag(appName) + ": "
		f.prefix = fmt.Appendf(nil, "<%d>", pri)
		f.names = fmt.Appendf(nil, " %s %s", bsdHost(hostname), tag)
		f.tag = len(tag)
		return f
	}
	f.prefix = fmt.Appendf(nil, "<%d>1 ", pri)
	f.names = fmt.Appendf(nil, " %s %s - ", header(hostname, 255), header(appName, 48))
	return f
}

// frameRoom is what is kept free before a message for what its framing puts
// there: at most the head of a RELP frame, a number of nine digits, the command
// and the length of an int, with spaces.
const frameRoom = 40

// frame returns r as one frame, which is valid until the next call. Or it
// returns why r can't be sent, with the kind that says so.
func (f *formatter) frame(r *record.Record) (frame []byte, why string, kind fault.Kind) {
	if why, kind = f.message(r); why != "" {
		return nil, why, kind
	}
	switch f.framing {
	case OctetCounting:
		var count [frameRoom]byte
		c := append(strconv.AppendInt(count[:0], int64(len(f.buf)-frameRoom), 10), ' ')
		return f.behind(c), "", 0
	case LF:
		f.buf = append(f.buf, '\n')
	}
	return f.buf[frameRoom:], "", 0
}

// behind puts head before the message and returns both.
func (f *formatter) behind(head []byte) []byte {
	start := frameRoom - len(head)
	copy(f.buf[start:], head)
	return f.buf[start:]
}

// message makes r into a message, which then stands in buf behind frameRoom. Or
// it returns why r can't be sent.
func (f *formatter) message(r *record.Record) (why string, kind fault.Kind) {
	if f.render == nil && len(r.Raw) > f.limit { // even without its header
		return f.tooLong(len(r.Raw)), fault.TooLarge
	}
	if f.buf == nil {
		f.buf = make([]byte, frameRoom, 4<<10)
	}
	b := f.header(f.buf[:frameRoom], r)
	f.buf = b
	head := len(b)
	left := f.limit - (head - frameRoom)
	switch {
	case f.render == nil && len(r.Raw) > left, left <= 0:
		return f.tooLong(head - frameRoom + len(r.Raw)), fault.TooLarge
	case f.render == nil:
		b = append(b, r.Raw...)
	default:
		out, err := f.render.Append(b, r, left)
		if err != nil {
			if fault.KindOf(err) == fault.TooLarge {
				return err.Error(), fault.TooLarge
			}
			return err.Error(), fault.Refused
		}
		b = out
	}
	f.buf = b
	if n := len(b) - frameRoom; n > f.limit {
		return f.tooLong(n), fault.TooLarge
	}
	// The rest of the message can't hold one, so this guards the record: where
	// a line feed ends a message, it would be two.
	if bytes.IndexByte(b[head:], '\n') >= 0 {
		return lineBreak, fault.Refused
	}
	if f.style == RFC3164 && bytes.HasPrefix(b[head:], []byte("CEF:")) {
		// CEF stands where the tag would: receivers look for it there.
		copy(b[head-f.tag:], b[head:])
		f.buf = b[:len(b)-f.tag]
	}
	return "", 0
}

const lineBreak = "holds a line break"

func (f *formatter) tooLong(n int) string {
	return fmt.Sprintf("longer than max_message: %d bytes, %d allowed", n, f.limit)
}

// header appends what stands before the record (RFC 5424 section 6, RFC 3164
// section 4.1). There is no BOM before the record: with one its bytes would not
// be CloudTrail's, and the receivers that know JSON would stumble over it.
func (f *formatter) header(b []byte, r *record.Record) []byte {
	b = append(b, f.prefix...)
	if f.style == RFC3164 {
		return append(appendBSDTime(b, r), f.names...)
	}
	b = appendTime(b, r)
	b = append(b, f.names...)
	b = append(b, header(r.Object.LogType, 32)...)
	b = append(b, ` [trailpoll@32473 id="`...)
	if len(r.EventID) > 0 {
		b = escape(b, r.EventID)
	} else {
		b = escape(b, r.Identity())
	}
	b = append(b, '"')
	if f.object != r.Object || f.data == nil {
		f.object, f.data = r.Object, structured(f.data[:0], r.Object)
	}
	return append(b, f.data...)
}

// bsdTag makes a TAG of s (RFC 3164 section 4.1.3): at most 32 characters, none
// of which ends it. Receivers end it at a colon, a bracket or a space.
func bsdTag(s string) string {
	return clean(s, 32, "cloudtrail", func(c byte) bool { return alnum(c) || c == '-' || c == '_' || c == '.' || c == '/' })
}

// bsdHost makes a HOSTNAME of s (RFC 3164 section 4.1.2).
func bsdHost(s string) string {
	return clean(s, 255, "localhost", func(c byte) bool { return alnum(c) || c == '-' || c == '_' || c == '.' || c == ':' })
}

func alnum(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// clean returns at most most bytes of s with an underscore for each that is not
// allowed; def for nothing.
func clean(s string, most int, def string, allowed func(byte) bool) string {
	if s == "" {
		return def
	}
	out := []byte(s[:min(len(s), most)])
	for i, c := range out {
		if !allowed(c) {
			out[i] = '_'
		}
	}
	return string(out)
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
	b = escape(b, val)
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

// escape appends s as a PARAM-VALUE: " \ ] escaped (RFC 5424 section 6.3.3), and
// what is no printable text (control characters, line and paragraph separators,
// bytes that are no UTF-8) written as Go writes it in a string: \n, \x00. Thus
// nothing in a key can end the value, the message or a line.
func escape[T string | []byte](b []byte, s T) []byte {
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
			r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
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
