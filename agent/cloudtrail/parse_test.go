package cloudtrail

import (
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// String returns the class's name.
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

// parsedKey is what the key of an object that holds records says.
type parsedKey struct {
	Stream   progress.Stream
	Position string    // the key after the stream's prefix
	Stamp    time.Time // the time in the object's name: whole minutes, UTC
}

// parse reads a whole key of a source with the given prefix, as the agent does
// level by level. The parsedKey is the zero one unless the class is Log.
func parse(prefix, whole string) (parsedKey, Class) {
	if strings.HasSuffix(whole, "/") {
		return parsedKey{}, Marker
	}
	rest, ok := cutRoot(prefix, whole)
	if !ok {
		return parsedKey{}, Foreign
	}
	var s progress.Stream
	level, rest, _ := strings.Cut(rest, "/")
	if IsOrganization(level) {
		s.Organization = level
		level, rest, _ = strings.Cut(rest, "/")
	}
	if !IsAccount(level) {
		return parsedKey{}, Foreign
	}
	s.Account = level
	s.LogType, rest, _ = strings.Cut(rest, "/")
	if s.LogType == typeDigest {
		return parsedKey{}, Digest
	}
	if !IsLogType(s.LogType) {
		return parsedKey{}, Foreign
	}
	s.Region, rest, _ = strings.Cut(rest, "/")
	if !IsRegion(s.Region) {
		return parsedKey{}, Foreign
	}
	stamp, class := ParsePosition(s, rest)
	if class != Log {
		return parsedKey{}, class
	}
	return parsedKey{Stream: s, Position: rest, Stamp: stamp}, Log
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
