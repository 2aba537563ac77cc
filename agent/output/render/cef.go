package render

import (
	"bytes"
	"net/netip"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/trailpoll/trailpoll/agent/record"
)

// CEF after the CEF Implementation Standard (Micro Focus, version 26):
//
//	CEF:0|AWS|CloudTrail|eventVersion|eventSource:eventName|eventName|severity|extension
//
// In the header a pipe and a backslash are escaped by a backslash, in values of
// the extension a backslash and an equals sign, and a line break is \n or \r.
// An equals sign in a value is the only thing that could begin another key.

// Severities, of 0 to 10.
const (
	cefOrdinary = '3'
	cefFailed   = '5' // the call was refused or failed: there is an errorCode
)

// cefKeys says which key a member of the record has, if its value is a string.
// Members that are not here have a key made of their name; see restKey.
var cefKeys = map[string]string{
	"eventName":    "act",
	"eventSource":  "destinationServiceName",
	"eventType":    "cat",
	"errorCode":    "reason",
	"errorMessage": "msg",
	"userAgent":    "requestClientApplication",
}

// cefCustom are the members that have one of the six custom strings.
var cefCustom = map[string]struct{ key, label string }{
	"recipientAccountId": {"cs1", "Account"},
	"awsRegion":          {"cs2", "Region"},
	"requestID":          {"cs5", "Request ID"},
}

// cefRest begins the keys of all other members.
const cefRest = "AWSCloudTrail"

// cef appends raw, the bytes of rec, as one CEF message.
func (w *worker) cef(dst []byte, rec *record.Record, raw []byte) ([]byte, error) {
	var err error
	if w.top, err = w.members(w.top[:0], raw); err != nil {
		return dst, err
	}
	clear(w.used)
	w.used[cefRest+"Unmapped"] = true // no member may be called so
	c := cefWriter{worker: w, dst: dst, reduced: &raw[0] != &rec.Raw[0]}
	c.header()
	c.where(rec)
	w.buf = w.buf[:0] // members that have no key
	for i := range w.top {
		c.member(&w.top[i], rec)
	}
	if !c.used["cs1"] {
		c.custom("cs1", "Account", []byte(rec.Object.Account))
	}
	if !c.used["cs2"] {
		c.custom("cs2", "Region", []byte(rec.Object.Region))
	}
	if len(w.buf) > 0 {
		c.key(cefRest + "Unmapped")
		c.dst = append(c.dst, '{')
		c.dst = appendCEFJSON(c.dst, w.buf)
		c.dst = append(c.dst, '}')
	}
	return c.dst, nil
}

// cefWriter writes one message.
type cefWriter struct {
	*worker
	dst     []byte
	reduced bool // the member called mark is ours
}

// find returns the text of the first member of this name that is a string.
func (c *cefWriter) find(name string) []byte {
	for i := range c.top {
		if m := &c.top[i]; m.plain == name && m.kind() == '"' {
			return c.unquoted(m.value)
		}
	}
	return nil
}

func (c *cefWriter) header() {
	c.dst = append(c.dst, "CEF:0|AWS|CloudTrail|"...)
	c.dst = appendCEFHeader(c.dst, c.find("eventVersion"))
	c.dst = append(c.dst, '|')
	name := "eventName"
	if len(c.find(name)) == 0 {
		name = "eventType" // Insight and aggregated events have no other
	} else if source := c.find("eventSource"); len(source) > 0 {
		c.dst = append(appendCEFHeader(c.dst, source), ':')
	}
	c.title(name)
	c.dst = append(c.dst, '|')
	c.title(name)
	severity := byte(cefOrdinary)
	if len(c.find("errorCode")) > 0 {
		severity = cefFailed
	}
	c.dst = append(c.dst, '|', severity, '|')
}

// title writes the text of a member, or that it is unknown.
func (c *cefWriter) title(name string) {
	text := c.find(name)
	if len(text) == 0 {
		text = []byte("Unknown")
	}
	c.dst = appendCEFHeader(c.dst, text)
}

// where writes what is known of the record without looking into it.
func (c *cefWriter) where(rec *record.Record) {
	o := rec.Object
	c.dst = append(c.dst, "rt="...)
	c.dst = strconv.AppendInt(c.dst, rec.Time().UnixMilli(), 10)
	c.once("externalId", c.unquoted(appendIdentity(nil, rec)))
	c.pair("outcome", []byte(c.outcome()))
	c.custom("cs3", "S3 Object", []byte("s3://"+o.Bucket+"/"+o.Key+"#"+strconv.Itoa(rec.Index)))
	c.pair("trailpollSource", []byte(o.Source))
	c.pair("trailpollOrganization", []byte(o.Organization))
	c.pair("trailpollAccountName", []byte(o.AccountName))
	if len(o.Labels) > 0 {
		c.pair("trailpollLabels", appendLabels(nil, o.Labels))
	}
}

// outcome returns how the call went; Insight and aggregated events are none.
func (c *cefWriter) outcome() string {
	switch {
	case len(c.find("errorCode")) > 0:
		return "failure"
	case len(c.find("eventName")) > 0:
		return "success"
	}
	return ""
}

// member writes one member of the record.
func (c *cefWriter) member(m *member, rec *record.Record) {
	switch m.kind() {
	case 'n':
		return // CEF has no null: what is not there is left out
	case '"':
		if c.text(m, rec) {
			return
		}
	case '{':
		if m.plain == "userIdentity" {
			c.identity(m.value)
		}
	}
	if c.reduced && m.plain == mark {
		c.key("trailpollReduced")
		c.dst = appendCEFJSON(c.dst, m.value)
		return
	}
	if key := restKey(m.plain); key != "" && c.free(key) {
		c.key(key)
		if m.kind() == '"' {
			c.dst = appendCEF(c.dst, c.unquoted(m.value))
		} else {
			c.dst = appendCEFJSON(c.dst, m.value)
		}
		return
	}
	if len(c.buf) > 0 {
		c.buf = append(c.buf, ',')
	}
	c.buf = append(c.buf, m.whole...)
}

// text writes a member that is a string under the key that CEF has for it, and
// reports whether it has one.
func (c *cefWriter) text(m *member, rec *record.Record) bool {
	switch m.plain {
	case "eventVersion":
		// It stands in the header, unless that can't hold all of it.
		return c.free("header") && !bytes.ContainsFunc(c.unquoted(m.value), unprintable)
	case "eventID", "eventId":
		return string(inner(m.value)) == string(rec.EventID) && c.free("identity") // externalId
	case "eventTime":
		// It is rt, if rt could be made of it.
		return string(inner(m.value)) == string(rec.EventTime) && rec.Time() != rec.Object.Stamp && c.free("rt")
	case "sourceIPAddress":
		return c.address(c.unquoted(m.value))
	}
	if key, ok := cefKeys[m.plain]; ok && c.free(key) {
		c.pair(key, c.unquoted(m.value))
		return true
	}
	if custom, ok := cefCustom[m.plain]; ok && c.free(custom.key) {
		c.custom(custom.key, custom.label, c.unquoted(m.value))
		return true
	}
	return false
}

// address writes who called: src holds IPv4 only, and for a service there is
// its name.
func (c *cefWriter) address(text []byte) bool {
	ip, err := netip.ParseAddr(string(text))
	switch {
	case err != nil || ip.Zone() != "":
		if !c.free("sourceServiceName") {
			return false
		}
		c.pair("sourceServiceName", text)
	case ip.Is4():
		if !c.free("src") {
			return false
		}
		c.pair("src", text)
	default:
		if !c.free("c6a2") {
			return false
		}
		c.key("c6a2")
		c.dst = append(appendCEF(c.dst, text), " c6a2Label=Source IPv6 Address"...)
	}
	return true
}

// identity writes what CEF has keys for; the whole of it follows as a member.
func (c *cefWriter) identity(value []byte) {
	var err error
	if c.nested, err = c.members(c.nested[:0], value); err != nil {
		return
	}
	for i := range c.nested {
		m := &c.nested[i]
		if m.kind() != '"' {
			continue
		}
		switch text := c.unquoted(m.value); m.plain {
		case "userName":
			c.once("suser", text)
		case "principalId":
			c.once("suid", text)
		case "type":
			c.once("spriv", text)
		case "arn":
			if c.free("cs4") {
				c.custom("cs4", "Identity ARN", text)
			}
		case "accessKeyId":
			if c.free("cs6") {
				c.custom("cs6", "Access Key ID", text)
			}
		}
	}
}

// free reports whether nothing has this key yet. The caller writes it.
func (c *cefWriter) free(key string) bool {
	if c.used[key] {
		return false
	}
	c.used[key] = true
	return true
}

func (c *cefWriter) once(key string, value []byte) {
	if c.free(key) {
		c.pair(key, value)
	}
}

func (c *cefWriter) key(key string) {
	c.dst = append(c.dst, ' ')
	c.dst = append(c.dst, key...)
	c.dst = append(c.dst, '=')
	c.used[key] = true
}

// pair writes a key and its value, nothing if the value is empty.
func (c *cefWriter) pair(key string, value []byte) {
	if len(value) > 0 {
		c.key(key)
		c.dst = appendCEF(c.dst, value)
	}
}

func (c *cefWriter) custom(key, label string, value []byte) {
	if len(value) > 0 {
		c.pair(key, value)
		c.pair(key+"Label", []byte(label))
	}
}

// restKey returns the key of a member that CEF has none for, "" if its name is
// not letters and digits: nothing else may stand in a key.
func restKey(name string) string {
	if name == "" || len(name) > 60 {
		return ""
	}
	for i := range len(name) {
		c := name[i] | 0x20
		if (c < 'a' || c > 'z') && (name[i] < '0' || name[i] > '9') {
			return ""
		}
	}
	first := name[0]
	if first >= 'a' {
		first -= 'a' - 'A'
	}
	return cefRest + string(first) + name[1:]
}

// appendCEFHeader appends s as a field of the header. A header has no escape
// for what is no printable text, so that becomes a space.
func appendCEFHeader(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == '|' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case breaks(r, n):
			dst = append(dst, ' ')
		default:
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return dst
}

// appendCEFJSON appends JSON as a value of the extension. A tab in it is white
// space between tokens, for within a string it would be escaped.
func appendCEFJSON(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, '\t')
		if i < 0 {
			return appendCEF(dst, s)
		}
		dst = append(appendCEF(dst, s[:i]), ' ')
		s = s[i+1:]
	}
}

// appendCEF appends s as a value of the extension. Control characters other
// than line breaks, and Unicode's separators of lines and paragraphs, are
// written as JSON writes them: \u0000.
func appendCEF(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '\\' && c != '=' {
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == '\\' || r == '=':
			dst = append(dst, '\\', c)
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == utf8.RuneError && n == 1:
			dst = append(dst, "\uFFFD"...)
		case breaks(r, n):
			dst = append(dst, `\\u`...)
			for shift := 12; shift >= 0; shift -= 4 {
				dst = append(dst, "0123456789abcdef"[r>>shift&15])
			}
		default:
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return dst
}

// breaks reports whether a receiver could take r, of n bytes, for the end of
// something.
func breaks(r rune, n int) bool { return unprintable(r) || r == utf8.RuneError && n == 1 }

func unprintable(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }
