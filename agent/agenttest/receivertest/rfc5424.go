package receivertest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Message is one syslog message of RFC 5424. A "-" (NILVALUE) is "".
type Message struct {
	Priority  int // facility × 8 + severity
	Time      time.Time
	Hostname  string
	AppName   string
	ProcID    string
	MessageID string
	Data      []Element
	Text      []byte // MSG, as it came
}

// Element is one element of a message's structured data.
type Element struct {
	ID     string
	Params []Param
}

// Param is one parameter, unescaped.
type Param struct{ Name, Value string }

// Param returns the first parameter of that name in any element.
func (m *Message) Param(name string) string {
	for _, e := range m.Data {
		for _, p := range e.Params {
			if p.Name == name {
				return p.Value
			}
		}
	}
	return ""
}

// ParseRFC5424 reads a message strictly by RFC 5424, section 6: what that
// grammar does not allow is an error, so that a receiver less kind than most
// is satisfied, too. Text is a sub-slice of raw.
func ParseRFC5424(raw []byte) (*Message, error) {
	p := &parser{rest: raw}
	m := &Message{}
	m.Priority = p.priority()
	if p.take("1 ", "version 1"); p.err != nil {
		return nil, p.err
	}
	if stamp := p.field("TIMESTAMP", 48); stamp != "" && p.err == nil {
		m.Time = p.timestamp(stamp)
	}
	m.Hostname = p.field("HOSTNAME", 255)
	m.AppName = p.field("APP-NAME", 48)
	m.ProcID = p.field("PROCID", 128)
	m.MessageID = p.field("MSGID", 32)
	m.Data = p.structuredData()
	switch {
	case p.err != nil:
		return nil, p.err
	case len(p.rest) == 0:
		return m, nil
	case p.rest[0] != ' ':
		return nil, errors.New("no space before MSG")
	}
	m.Text = p.rest[1:]
	if t, bom := bytes.CutPrefix(m.Text, []byte("\xef\xbb\xbf")); bom && !utf8.Valid(t) {
		return nil, errors.New("MSG has a BOM and is not UTF-8")
	}
	return m, nil
}

// parser eats a message from the front; after the first error it eats no more.
type parser struct {
	rest []byte
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("no RFC 5424 message: "+format, args...)
	}
}

func (p *parser) take(s, what string) {
	if p.err != nil {
		return
	}
	rest, found := bytes.CutPrefix(p.rest, []byte(s))
	if !found {
		p.fail("%s expected", what)
		return
	}
	p.rest = rest
}

// priority eats `<0>` to `<191>`, without leading zeros.
func (p *parser) priority() int {
	p.take("<", "PRI")
	end := bytes.IndexByte(p.rest, '>')
	if p.err != nil || end < 1 || end > 3 {
		p.fail("PRI")
		return 0
	}
	digits := string(p.rest[:end])
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > 191 || strconv.Itoa(n) != digits {
		p.fail("PRI %q", digits)
	}
	p.rest = p.rest[end+1:]
	return n
}

// field eats one field of printable ASCII and the space behind it.
func (p *parser) field(name string, longest int) string {
	if p.err != nil {
		return ""
	}
	end := bytes.IndexByte(p.rest, ' ')
	if end < 1 || end > longest {
		p.fail("%s is empty, too long or the last", name)
		return ""
	}
	f := p.rest[:end]
	for _, c := range f {
		if c < 33 || c > 126 {
			p.fail("%s holds the byte %#x", name, c)
		}
	}
	p.rest = p.rest[end+1:]
	if string(f) == "-" {
		return ""
	}
	return string(f)
}

// timestamp reads an RFC 3339 time with the narrower rules of section 6.2.3:
// upper-case T and Z, at most six digits of a second.
func (p *parser) timestamp(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	_, fraction, _ := strings.Cut(s, ".")
	digits := len(fraction) - len(strings.TrimLeft(fraction, "0123456789"))
	if err != nil || digits > 6 || strings.ContainsAny(s, "tz,") {
		p.fail("TIMESTAMP %q", s)
	}
	return t
}

// structuredData eats `-` or one element after the other (section 6.3).
func (p *parser) structuredData() (all []Element) {
	if p.err != nil {
		return nil
	}
	if rest, none := bytes.CutPrefix(p.rest, []byte("-")); none {
		p.rest = rest
		return nil
	}
	for p.err == nil && len(p.rest) > 0 && p.rest[0] == '[' {
		p.rest = p.rest[1:]
		e := Element{ID: p.name(" ]")}
		for p.err == nil && len(p.rest) > 0 && p.rest[0] == ' ' {
			p.rest = p.rest[1:]
			name := p.name("=")
			p.take(`="`, `="`)
			e.Params = append(e.Params, Param{name, p.value()})
		}
		p.take("]", "] at the end of an element")
		for _, other := range all {
			if other.ID == e.ID {
				p.fail("two elements %q", e.ID)
			}
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		p.fail("STRUCTURED-DATA")
	}
	return all
}

// name eats an SD-NAME: 1 to 32 printable ASCII characters without `=`, `]`,
// `"` and space.
func (p *parser) name(until string) string {
	if p.err != nil {
		return ""
	}
	end := bytes.IndexAny(p.rest, until)
	if end < 1 || end > 32 {
		p.fail("SD-NAME")
		return ""
	}
	n := p.rest[:end]
	for _, c := range n {
		if c < 33 || c > 126 || c == '=' || c == ']' || c == '"' {
			p.fail("SD-NAME %q", n)
		}
	}
	p.rest = p.rest[end:]
	return string(n)
}

// value eats a PARAM-VALUE and its closing quote: `"`, `\` and `]` are
// escaped, the rest is UTF-8.
func (p *parser) value() string {
	var v []byte
	for i := 0; i < len(p.rest) && p.err == nil; i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			if !utf8.Valid(v) {
				p.fail("PARAM-VALUE is not UTF-8")
			}
			return string(v)
		case c == ']':
			p.fail("unescaped ] in PARAM-VALUE")
		case c == '\\' && i+1 < len(p.rest) && bytes.IndexByte([]byte(`"\]`), p.rest[i+1]) >= 0:
			i++
			v = append(v, p.rest[i])
		default:
			v = append(v, c)
		}
	}
	p.fail("PARAM-VALUE without an end")
	return ""
}
