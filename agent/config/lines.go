package config

import (
	"bytes"
	"strconv"
	"strings"
)

// lineIndex returns the line of every key, table and list item of a document
// that the TOML library has accepted; the library itself tells the position of
// errors only. It relies on that acceptance: it looks for where things end and
// judges nothing. On anything else it returns some lines, or wrong ones, but it
// always returns.
func lineIndex(data []byte) map[string]int {
	s := &lineScanner{
		in:    bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")),
		line:  1,
		lines: map[string]int{},
		last:  map[string]int{},
	}
	s.document()
	return s.lines
}

// maxDepth is how deep keys and lists are followed. Ours are four deep; a file
// made of brackets must not cost the square of its length.
const maxDepth = 16

type lineScanner struct {
	in    []byte
	pos   int
	line  int
	lines map[string]int
	last  map[string]int // path of an array of tables → the number of its last table
}

func (s *lineScanner) document() {
	table := ""
	for {
		s.space(true)
		if s.pos >= len(s.in) {
			return
		}
		if s.in[s.pos] == '[' {
			table = s.header()
		} else {
			s.pair(table, 0)
		}
	}
}

// peek returns the next byte, 0 at the end. A NUL can't stand in TOML.
func (s *lineScanner) peek() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

func (s *lineScanner) next() byte {
	c := s.peek()
	if s.pos < len(s.in) {
		s.pos++
	}
	if c == '\n' {
		s.line++
	}
	return c
}

// space passes over blanks, and if wanted over line breaks and comments.
func (s *lineScanner) space(breaks bool) {
	for s.pos < len(s.in) {
		switch c := s.in[s.pos]; {
		case c == ' ' || c == '\t' || breaks && (c == '\n' || c == '\r'):
			s.next()
		case breaks && c == '#':
			for s.pos < len(s.in) && s.in[s.pos] != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

func (s *lineScanner) mark(path string, line int) {
	if s.lines[path] == 0 {
		s.lines[path] = line
	}
}

// header reads [a.b] or [[a.b]] and returns the path of the table that
// follows.
func (s *lineScanner) header() string {
	line := s.line
	s.next()
	array := s.peek() == '['
	if array {
		s.next()
	}
	keys := s.keys()
	for s.peek() == ']' {
		s.next()
	}
	path := ""
	for i, k := range keys {
		path = child(path, k)
		s.mark(path, line)
		n, isArray := s.last[path]
		if array && i == len(keys)-1 {
			if isArray {
				n++
			}
			s.last[path] = n
			isArray = true
		}
		if isArray {
			path = item(path, n)
			s.mark(path, line)
		}
	}
	return path
}

// pair reads key = value within a table.
func (s *lineScanner) pair(table string, depth int) {
	line := s.line
	path := table
	for _, k := range s.keys() {
		path = child(path, k)
		s.mark(path, line)
	}
	s.space(false)
	if s.next() == '=' {
		s.space(false)
		s.value(path, depth)
	}
}

// keys reads a dotted key. It always passes over at least one byte.
func (s *lineScanner) keys() []string {
	var keys []string
	for {
		s.space(false)
		var key string
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			key = s.text()
		case isBare(c):
			from := s.pos
			for isBare(s.peek()) {
				s.pos++
			}
			key = string(s.in[from:s.pos])
		default:
			s.next()
			return keys
		}
		if len(keys) < maxDepth {
			keys = append(keys, key)
		}
		s.space(false)
		if s.peek() != '.' {
			return keys
		}
		s.next()
	}
}

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// value passes over a value and marks what stands within.
func (s *lineScanner) value(path string, depth int) {
	switch s.peek() {
	case '"', '\'':
		s.text()
	case '[':
		s.list(path, depth+1)
	case '{':
		s.inline(path, depth+1)
	default:
		for s.pos < len(s.in) && !bytes.ContainsRune([]byte(",]}#\r\n"), rune(s.in[s.pos])) {
			s.pos++
		}
	}
}

func (s *lineScanner) list(path string, depth int) {
	if s.tooDeep(depth) {
		return
	}
	s.next()
	for i := 0; ; i++ {
		s.space(true)
		if c := s.peek(); c == ']' || c == 0 {
			s.next()
			return
		}
		at := item(path, i)
		s.mark(at, s.line)
		before := s.pos
		s.value(at, depth)
		s.space(true)
		if s.peek() == ',' || s.pos == before {
			s.next()
		}
	}
}

func (s *lineScanner) inline(path string, depth int) {
	if s.tooDeep(depth) {
		return
	}
	s.next()
	for {
		s.space(true)
		switch s.peek() {
		case '}', 0:
			s.next()
			return
		case ',':
			s.next()
		default:
			s.pair(path, depth)
		}
	}
}

// tooDeep passes over a list or table that is not followed, brackets counted.
func (s *lineScanner) tooDeep(depth int) bool {
	if depth <= maxDepth {
		return false
	}
	open := 0
	for {
		switch s.peek() {
		case 0:
			return true
		case '"', '\'':
			s.text()
			continue
		case '#':
			s.space(true)
			continue
		case '[', '{':
			open++
		case ']', '}':
			open--
		}
		s.next()
		if open == 0 {
			return true
		}
	}
}

// text passes over a string of any of the four kinds. What it returns is right
// for the kinds that a key may have: one line, in "…" or '…'.
func (s *lineScanner) text() string {
	quote := s.next()
	if s.peek() == quote {
		s.next()
		if s.peek() != quote {
			return ""
		}
		s.next()
		s.longText(quote)
		return ""
	}
	from := s.pos
	for s.pos < len(s.in) && s.in[s.pos] != quote {
		if quote == '"' && s.in[s.pos] == '\\' {
			s.next()
		}
		s.next()
	}
	raw := string(s.in[from:s.pos])
	s.next()
	if quote == '\'' || !strings.Contains(raw, `\`) {
		return raw
	}
	return unescape(raw)
}

func (s *lineScanner) longText(quote byte) {
	run := 0
	for s.pos < len(s.in) {
		switch c := s.next(); {
		case c == quote:
			run++
			// Up to two quotes may stand before the closing three.
			if run >= 3 && s.peek() != quote {
				return
			}
		case c == '\\' && quote == '"':
			s.next()
			run = 0
		default:
			run = 0
		}
	}
}

// unescape undoes TOML's escapes, of which \e and \x… for code points are not
// Go's.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i]]
		switch at := strings.IndexByte(`btnfre"\`, s[i]); {
		case at >= 0:
			b.WriteByte("\b\t\n\f\r\x1b\"\\"[at])
		case digits > 0 && i+digits < len(s):
			n, _ := strconv.ParseUint(s[i+1:i+1+digits], 16, 32)
			b.WriteRune(rune(n))
			i += digits
		}
	}
	return b.String()
}
