package cloudtrail

import "strings"

// maxSkimDepth bounds the memory that a skimmer takes for brackets: 128 KiB.
const maxSkimDepth = 1 << 20

// skimmer finds where an unfit object, array or string ends, by its brackets
// and quotes alone. It may be fed in pieces, so a record of any length can be
// passed over without being held.
//
// It must rather give up than find a wrong end, because what stands behind the
// end goes out as a record. So brackets must match in kind, control characters
// may stand inside strings only, and a string must stand where strings may:
// behind one of { [ , : and before one of } ] , : in all events. That shows
// when a stray quote has turned inside and outside over.
type skimmer struct {
	open    []uint64 // a bit for each open bracket: 1 an object, 0 an array
	depth   int
	quoted  bool // inside a string
	escaped bool // behind a backslash in a string
	last    byte // what stood last outside of strings, a string itself being a quote
}

// skim is how far a skimmer came.
type skim int

const (
	skimMore   skim = iota // the end was not in this piece
	skimEnd                // the end was found
	skimAstray             // there is no telling where it ends
)

// reset prepares for another value.
func (k *skimmer) reset() {
	*k = skimmer{open: k.open[:0]}
}

// feed takes the next piece, which for the first begins with the opening
// bracket or quote. It returns the index behind the closing one with skimEnd,
// and that of the byte at fault with skimAstray.
func (k *skimmer) feed(b []byte) (int, skim) {
	for i, c := range b {
		if k.quoted {
			switch {
			case k.escaped:
				k.escaped = false
			case c == '\\':
				k.escaped = true
			case c == '"':
				k.quoted = false
				if k.depth == 0 {
					return i + 1, skimEnd
				}
			}
			continue
		}
		if kinds[c] == kindSpace {
			continue
		}
		before := k.last
		k.last = c
		if before == '"' && strings.IndexByte("}],:", c) < 0 {
			return i, skimAstray
		}
		switch c {
		case '"':
			if before != 0 && strings.IndexByte("{[,:", before) < 0 {
				return i, skimAstray
			}
			k.quoted = true
		case '{', '[':
			if !k.push(c == '{') {
				return i, skimAstray
			}
		case '}', ']':
			if !k.pop(c == '}') {
				return i, skimAstray
			}
			if k.depth == 0 {
				return i + 1, skimEnd
			}
		default:
			if c < ' ' {
				return i, skimAstray
			}
		}
	}
	return len(b), skimMore
}

// push opens a bracket, unless too many are open.
func (k *skimmer) push(object bool) bool {
	if k.depth == maxSkimDepth {
		return false
	}
	word, bit := k.depth/64, uint64(1)<<(k.depth%64)
	if word == len(k.open) {
		k.open = append(k.open, 0)
	}
	k.open[word] &^= bit
	if object {
		k.open[word] |= bit
	}
	k.depth++
	return true
}

// pop closes the last open bracket, unless that is of the other kind. One is
// open: the first byte fed opened it.
func (k *skimmer) pop(object bool) bool {
	k.depth--
	return (k.open[k.depth/64]>>(k.depth%64)&1 == 1) == object
}
