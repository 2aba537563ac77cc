package page

import (
	"fmt"
	"strconv"
	"strings"
)

// clean takes out of a text what would make it look like another: control
// characters, and those that turn the direction of writing. Keys and errors
// come from elsewhere. That nothing becomes markup is the template's to see to.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x200e && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\ufffd'
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// age writes a number of seconds with its two largest units.
func age(seconds int64) string {
	const minute, hour, day = 60, 60 * 60, 24 * 60 * 60
	two := func(large string, unit int64, small string, part int64) string {
		text := fmt.Sprintf("%d %s", seconds/unit, large)
		if rest := seconds % unit / part; rest > 0 {
			text += fmt.Sprintf(" %d %s", rest, small)
		}
		return text
	}
	switch {
	case seconds >= day:
		return two("d", day, "h", hour)
	case seconds >= hour:
		return two("h", hour, "min", minute)
	case seconds >= minute:
		return two("min", minute, "s", 1)
	}
	return fmt.Sprintf("%d s", seconds)
}

// number writes a number with its thousands apart.
func number[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// anyNumber is number for the template.
func anyNumber(n any) string {
	switch n := n.(type) {
	case int:
		return number(n)
	case int64:
		return number(n)
	}
	return fmt.Sprint(n)
}

// size writes a number of bytes.
func size(n int64) string {
	x := float64(n)
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if x < 1024 {
			return strconv.FormatFloat(x, 'f', map[bool]int{true: 0, false: 1}[u == "B"], 64) + " " + u
		}
		x /= 1024
	}
	return strconv.FormatFloat(x, 'f', 1, 64) + " TiB"
}

// plural writes a count with what is counted; many is what several are called,
// if an s is not enough.
func plural(n int, one string, many ...string) string {
	switch {
	case n == 1:
		return "1 " + one
	case len(many) > 0:
		return number(n) + " " + many[0]
	}
	return number(n) + " " + one + "s"
}
