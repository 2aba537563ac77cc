package config

import "strings"

// nearest returns the name that was most likely meant by s, or "" if none is
// near: at most a third of its letters differ.
func nearest(s string, names []string) string {
	const longest = 64 // the distance costs the product of both lengths
	if len(s) > longest {
		return ""
	}
	s = strings.ReplaceAll(strings.ToLower(s), "-", "_")
	best, bestDistance := "", longest
	for _, name := range names {
		plain := strings.ReplaceAll(strings.ToLower(name), "-", "_")
		if n := distance(s, plain); n < bestDistance && n <= max(1, len(plain)/3) {
			best, bestDistance = name, n
		}
	}
	return best
}

// distance is how many letters must be put in, left out or changed to get from
// a to b, or two neighbours swapped.
func distance(a, b string) int {
	above := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	next := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], above[j-2]+1)
			}
		}
		above, row, next = row, next, above
	}
	return row[len(b)]
}
