package cloudtrail

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may stand in each other inside a
// record. It is what jsontext allows, far beyond what CloudTrail writes.
const maxDepth = 10_000

// span is a part of a buffer: bytes from ≤ i < to. The zero span is none, as
// nothing of interest can begin at byte 0.
type span struct{ from, to int }

// scanner checks one JSON value after RFC 8259 in a single pass, without
// recursion, and notes what the splitter wants to know of it. It is strict: no
// comments, no trailing commas, no control characters in strings, only valid
// UTF-8. Escapes of lone surrogates (\ud800) are within the grammar (section
// 8.2) and pass; so do member names that occur twice (section 4).
//
// A scanner is used again without being made anew; it allocates only for
// values nested deeper than 64 levels, and keeps that memory.
type scanner struct {
	// Of the value's own members (not of members deeper in it), as written
	// between the quotes, as indexes into the bytes scanned. Of several with
	// the same name the first that is a string counts. A name written with
	// escapes is not recognised; CloudTrail writes none.
	eventID   span
	altID     span // eventId, which is another member: aggregated events have it
	eventTime span

	lineBreak bool // white space outside strings holds a line break

	want  *span    // where the string value of the member just named goes
	outer []uint64 // kinds of the containers around the innermost 64
}

// Kinds of bytes outside strings.
const (
	kindOther byte = iota
	kindSpace
	kindQuote
	kindNumber
	kindLiteral
	kindObject
	kindArray
)

// kinds says with which byte which kind of value begins. An array, not a map
// or a switch, because it is asked for every value.
var kinds = [256]byte{
	' ': kindSpace, '\t': kindSpace, '\n': kindSpace, '\r': kindSpace,
	'"': kindQuote,
	'-': kindNumber, '0': kindNumber, '1': kindNumber, '2': kindNumber, '3': kindNumber, '4': kindNumber,
	'5': kindNumber, '6': kindNumber, '7': kindNumber, '8': kindNumber, '9': kindNumber,
	't': kindLiteral, 'f': kindLiteral, 'n': kindLiteral,
	'{': kindObject, '[': kindArray,
}

// value checks the value that begins at b[i], which is not white space, and
// returns the index behind it. With a flaw it returns the index of the byte
// at which that showed; short means that b ends before the value does.
// A number that reaches the end of b is short, too.
func (s *scanner) value(b []byte, i int) (int, flaw) {
	s.eventID, s.altID, s.eventTime = span{}, span{}, span{}
	s.lineBreak = false
	s.want = nil
	s.outer = s.outer[:0]

	// inner holds the kinds of the innermost 64 containers, the innermost in
	// the lowest bit: 1 an object, 0 an array.
	var inner uint64
	depth := 0
	var bad flaw
	for {
		// A value begins here, or white space before it.
		if i >= len(b) {
			return i, short
		}
		switch kinds[b[i]] {
		case kindQuote:
			from := i + 1
			if i, bad = stringEnd(b, from); bad != sound {
				return i, bad
			}
			if s.want != nil {
				*s.want, s.want = span{from, i}, nil
			}
			i++
		case kindNumber:
			if i, bad = numberEnd(b, i); bad != sound {
				return i, bad
			}
		case kindLiteral:
			if i, bad = literalEnd(b, i); bad != sound {
				return i, bad
			}
		case kindObject, kindArray:
			if depth == maxDepth {
				return i, deep
			}
			if depth > 0 && depth%64 == 0 {
				s.outer = append(s.outer, inner)
			}
			s.want = nil
			isObject := b[i] == '{'
			inner <<= 1
			depth++
			i = s.space(b, i+1)
			if i >= len(b) {
				return i, short
			}
			if isObject {
				inner |= 1
				if b[i] == '"' {
					if i, bad = s.name(b, i, depth); bad != sound {
						return i, bad
					}
					continue
				}
				if b[i] != '}' {
					return i, syntax
				}
			} else if b[i] != ']' {
				continue
			}
			// Empty: left to be closed below.
		case kindSpace:
			i = s.space(b, i)
			continue
		default:
			return i, syntax
		}

		// A value is behind us: close what ends here, up to the next comma.
		for {
			if depth == 0 {
				return i, sound
			}
			if i >= len(b) {
				return i, short
			}
			c := b[i]
			if c == ',' {
				i++
				if inner&1 == 0 {
					break
				}
				if i < len(b) && b[i] != '"' {
					i = s.space(b, i)
				}
				if i >= len(b) {
					return i, short
				}
				if b[i] != '"' {
					return i, syntax
				}
				if i, bad = s.name(b, i, depth); bad != sound {
					return i, bad
				}
				break
			}
			if c == '}' && inner&1 == 1 || c == ']' && inner&1 == 0 {
				i++
				depth--
				inner >>= 1
				if depth > 0 && depth%64 == 0 {
					inner = s.outer[len(s.outer)-1]
					s.outer = s.outer[:len(s.outer)-1]
				}
				continue
			}
			if kinds[c] != kindSpace {
				return i, syntax
			}
			i = s.space(b, i)
		}
	}
}

// space returns the index of the first byte from b[i] on that is no white
// space, and notes line breaks.
func (s *scanner) space(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case ' ', '\t':
		case '\n', '\r':
			s.lineBreak = true
		default:
			return i
		}
	}
	return i
}

// name checks a member's name, whose opening quote is b[i], and the colon, and
// returns the index behind that.
func (s *scanner) name(b []byte, i, depth int) (int, flaw) {
	from := i + 1
	i, bad := stringEnd(b, from)
	if bad != sound {
		return i, bad
	}
	s.want = nil
	if depth == 1 {
		s.notice(b[from:i])
	}
	i++
	if i < len(b) && b[i] != ':' {
		i = s.space(b, i)
	}
	if i >= len(b) {
		return i, short
	}
	if b[i] != ':' {
		return i, syntax
	}
	return i + 1, sound
}

// notice sets want if a member of this name is of interest and not yet found.
func (s *scanner) notice(name []byte) {
	var to *span
	switch string(name) {
	case "eventID":
		to = &s.eventID
	case "eventId":
		to = &s.altID
	case "eventTime":
		to = &s.eventTime
	default:
		return
	}
	if to.to == 0 {
		s.want = to
	}
}

const (
	eachByte = 0x0101010101010101
	highBits = 0x8080808080808080
)

// stringEnd returns the index of the quote that closes the string whose first
// byte is b[i].
func stringEnd(b []byte, i int) (int, flaw) {
	for {
		// Eight bytes at a time, to the first that is a quote, a backslash, a
		// control character or not ASCII: subtracting sets the high bit of
		// those, and of a byte that is not ASCII at least one of the three
		// leaves it set. It borrows only behind a byte that is a hit itself,
		// so the lowest hit is a true one.
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			hit := ((x - ' '*eachByte) | ((x ^ '"'*eachByte) - eachByte) | ((x ^ '\\'*eachByte) - eachByte)) & highBits
			if hit != 0 {
				i += bits.TrailingZeros64(hit) >> 3
				break
			}
			i += 8
		}
		if i >= len(b) {
			return i, short
		}
		switch c := b[i]; {
		case c == '"':
			return i, sound
		case c == '\\':
			n, bad := escapeLen(b[i:])
			if bad != sound {
				return i, bad
			}
			i += n
		case c < ' ':
			return i, syntax
		case c >= utf8.RuneSelf:
			for i < len(b) && b[i] >= utf8.RuneSelf {
				r, n := utf8.DecodeRune(b[i:])
				if r == utf8.RuneError && n == 1 {
					if !utf8.FullRune(b[i:]) {
						return i, short
					}
					return i, encoding
				}
				i += n
			}
		default:
			i++ // the last bytes of b, one by one
		}
	}
}

// escapeLen returns the length of the escape that b begins with.
func escapeLen(b []byte) (int, flaw) {
	if len(b) < 2 {
		return 0, short
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, sound
	case 'u':
		for i := 2; i < 6; i++ {
			if i >= len(b) {
				return 0, short
			}
			c := b[i] | 0x20
			if !isDigit(b[i]) && (c < 'a' || c > 'f') {
				return 0, syntax
			}
		}
		return 6, sound
	}
	return 0, syntax
}

// numberEnd returns the index behind the number that begins at b[i].
func numberEnd(b []byte, i int) (int, flaw) {
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else {
		var bad flaw
		if i, bad = digitsEnd(b, i); bad != sound {
			return i, bad
		}
	}
	if i < len(b) && b[i] == '.' {
		var bad flaw
		if i, bad = digitsEnd(b, i+1); bad != sound {
			return i, bad
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		var bad flaw
		if i, bad = digitsEnd(b, i); bad != sound {
			return i, bad
		}
	}
	if i >= len(b) {
		return i, short
	}
	return i, sound
}

// digitsEnd returns the index behind the digits, one or more, at b[i].
func digitsEnd(b []byte, i int) (int, flaw) {
	from := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	switch {
	case i > from:
		return i, sound
	case i >= len(b):
		return i, short
	}
	return i, syntax
}

// literalEnd returns the index behind true, false or null at b[i].
func literalEnd(b []byte, i int) (int, flaw) {
	var want string
	switch b[i] {
	case 't':
		want = "true"
	case 'f':
		want = "false"
	default:
		want = "null"
	}
	if have := b[i:]; len(have) < len(want) {
		if want[:len(have)] == string(have) {
			return len(b), short
		}
		return i, syntax
	} else if string(have[:len(want)]) != want {
		return i, syntax
	}
	return i + len(want), sound
}
