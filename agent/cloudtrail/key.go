package cloudtrail

import (
	"strings"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Class is what a key names.
type Class int

const (
	// Foreign is nothing of ours: AWS Config's files, load balancer logs,
	// whatever else shares the bucket.
	Foreign Class = iota
	// Log is an object that holds records.
	Log
	// Digest is a file of CloudTrail's proof of completeness.
	Digest
	// Marker stands for a folder: its key ends with "/".
	Marker
)

// The log types in the order of the design. CloudTrail delivers what it calls
// network activity, Insights and aggregated events into folders beside
// CloudTrail, not inside it.
const (
	typeEvents     = "CloudTrail"
	typeInsight    = "CloudTrail-Insight"
	typeNetwork    = "CloudTrail-NetworkActivity"
	typeAggregated = "CloudTrail-Aggregated"
	typeDigest     = "CloudTrail-Digest"
)

const logsFolder = "AWSLogs/"

// LogTypes returns the four log types, in a slice of the caller's own.
func LogTypes() []string {
	return []string{typeEvents, typeInsight, typeNetwork, typeAggregated}
}

// Root returns what all keys of a trail with this S3 key prefix begin with,
// "/" at its end. The prefix is taken as it is: CloudTrail itself puts a "/"
// after whatever it was given, so a prefix that ends with one gives two.
func Root(prefix string) string {
	if prefix == "" {
		return logsFolder
	}
	return prefix + "/" + logsFolder
}

// StreamPrefix returns what all keys of the stream begin with, "/" at its end.
func StreamPrefix(prefix string, s progress.Stream) string {
	return Root(prefix) + s.String() + "/"
}

// IsOrganization reports whether a folder name has the shape of an
// organisation's id: "o-" and up to 32 lower-case letters and digits (AWS
// Organizations API, data type Organization; it also asks for at least 10,
// which is not ours to enforce).
func IsOrganization(s string) bool {
	rest, ok := strings.CutPrefix(s, "o-")
	if !ok || rest == "" || len(rest) > 32 {
		return false
	}
	for i := range len(rest) {
		if !isLower(rest[i]) && !isDigit(rest[i]) {
			return false
		}
	}
	return true
}

// IsAccount reports whether a folder name has the shape of an account's id: 12
// digits.
func IsAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}

// IsLogType reports whether s is one of the four log types.
func IsLogType(s string) bool {
	switch s {
	case typeEvents, typeInsight, typeNetwork, typeAggregated:
		return true
	}
	return false
}

// IsRegion reports whether a folder name has the shape of a region: three or
// more words of lower-case letters and digits with "-" between them, of which
// the first begins with a letter and the last with a digit. A region that is
// opened tomorrow, in a partition of tomorrow, is one too.
func IsRegion(s string) bool {
	if s == "" || !isLower(s[0]) {
		return false
	}
	words, begin := 1, 0
	for i := range len(s) {
		switch c := s[i]; {
		case isLower(c) || isDigit(c):
		case c == '-' && i > begin:
			words, begin = words+1, i+1
		default:
			return false
		}
	}
	return words >= 3 && begin < len(s) && isDigit(s[begin])
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
