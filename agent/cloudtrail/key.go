package cloudtrail

import (
	"strings"
	"time"

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

// String returns the class's name as logs and metrics show it.
func (c Class) String() string {
	switch c {
	case Log:
		return "log"
	case Digest:
		return "digest"
	case Marker:
		return "marker"
	default:
		return "foreign"
	}
}

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

// Key is what the key of an object that holds records says.
type Key struct {
	Stream   progress.Stream
	Position string    // the key after the stream's prefix
	Stamp    time.Time // the time in the object's name: whole minutes, UTC
}

// Parse reads a whole key of a source with the given prefix. The Key is the
// zero Key unless the class is Log.
//
// The grammar is that of the CloudTrail user guide, "Finding your CloudTrail
// log files", with the older form that has no "_" before the unique part:
//
//	[prefix/]AWSLogs/[o-…/]<account>/<log type>/<region>/<position>
//	position = YYYY/MM/DD/<account>_<log type>_<region>_YYYYMMDDTHHmmZ[_]<unique>.json.gz
//
// Control Tower's two organisation levels are no case of their own: the first
// is the trail's prefix.
func Parse(prefix, key string) (Key, Class) {
	if strings.HasSuffix(key, "/") {
		return Key{}, Marker
	}
	rest, ok := cutRoot(prefix, key)
	if !ok {
		return Key{}, Foreign
	}
	var s progress.Stream
	level, rest, _ := strings.Cut(rest, "/")
	if IsOrganization(level) {
		s.Organization = level
		level, rest, _ = strings.Cut(rest, "/")
	}
	if !IsAccount(level) {
		return Key{}, Foreign
	}
	s.Account = level
	s.LogType, rest, _ = strings.Cut(rest, "/")
	if s.LogType == typeDigest {
		return Key{}, Digest
	}
	if !IsLogType(s.LogType) {
		return Key{}, Foreign
	}
	s.Region, rest, _ = strings.Cut(rest, "/")
	if !IsRegion(s.Region) {
		return Key{}, Foreign
	}
	stamp, class := ParsePosition(s, rest)
	if class != Log {
		return Key{}, class
	}
	return Key{Stream: s, Position: rest, Stamp: stamp}, Log
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

// cutRoot is strings.CutPrefix(key, Root(prefix)) without making the root.
func cutRoot(prefix, key string) (string, bool) {
	if prefix != "" {
		var ok bool
		if key, ok = strings.CutPrefix(key, prefix); !ok {
			return "", false
		}
		if key, ok = strings.CutPrefix(key, "/"); !ok {
			return "", false
		}
	}
	return strings.CutPrefix(key, logsFolder)
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
