package progress

import (
	"slices"
	"strconv"
	"strings"
)

// Range is the records From, From+1, … To-1 of an object.
type Range struct{ From, To int }

// Ranges is a set of records of one object: ascending, not empty, neither
// touching nor overlapping. The zero value is the empty set. Not safe for
// concurrent use.
type Ranges []Range

// Add returns the set with [from, to) in it. It may reuse r's memory.
func (r Ranges) Add(from, to int) Ranges {
	if from >= to {
		return r
	}
	// The usual case: acknowledgements come in order.
	if n := len(r); n == 0 || r[n-1].To < from {
		return append(r, Range{from, to})
	}
	i, _ := slices.BinarySearchFunc(r, from, func(x Range, from int) int { return x.To - from })
	j := i
	for j < len(r) && r[j].From <= to {
		from, to = min(from, r[j].From), max(to, r[j].To)
		j++
	}
	return slices.Replace(r, i, j, Range{from, to})
}

// Has reports whether record i is in the set.
func (r Ranges) Has(i int) bool {
	n, found := slices.BinarySearchFunc(r, i, func(x Range, i int) int {
		switch {
		case x.To <= i:
			return -1
		case x.From > i:
			return 1
		}
		return 0
	})
	return found && n < len(r)
}

// Len returns how many records are in the set.
func (r Ranges) Len() int {
	n := 0
	for _, x := range r {
		n += x.To - x.From
	}
	return n
}

// Remove returns the set without i. r itself stays as it is.
func (r Ranges) Remove(i int) Ranges {
	if !r.Has(i) {
		return r
	}
	var rest Ranges
	for _, x := range r {
		if x.From <= i && i < x.To {
			rest = rest.Add(x.From, i).Add(i+1, x.To)
		} else {
			rest = rest.Add(x.From, x.To)
		}
	}
	return rest
}

// Clone returns a copy that shares no memory.
func (r Ranges) Clone() Ranges { return slices.Clone(r) }

// String returns the set as "0-9,20-29", both ends included.
func (r Ranges) String() string {
	var b strings.Builder
	for i, x := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(x.From))
		b.WriteByte('-')
		b.WriteString(strconv.Itoa(x.To - 1))
	}
	return b.String()
}
