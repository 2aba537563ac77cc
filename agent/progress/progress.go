// Package progress holds what the agent remembers of its work: which source,
// which stream, which lane stands where. The agent says what changes, a
// checkpoint store makes it durable; both speak in these types. It imports
// nothing of ours but record.
package progress

import (
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/record"
)

// SourceID names a source's state: bucket, slash, prefix. It is the same
// whatever the source is called and whoever's credentials read it.
type SourceID string

// Stream is source × organisation × account × log type × region, less the
// source.
type Stream struct {
	Organization string `json:"organization,omitempty"` // "" where there is no such level
	Account      string `json:"account"`
	LogType      string `json:"log_type"`
	Region       string `json:"region"`
}

// String returns the stream as logs name it, and as S3 has it in keys.
func (s Stream) String() string {
	parts := []string{s.Account, s.LogType, s.Region}
	if s.Organization != "" {
		parts = append([]string{s.Organization}, parts...)
	}
	return strings.Join(parts, "/")
}

// Lane is stream × output: the unit of progress.
type Lane struct {
	Source SourceID
	Stream Stream
	Output string
	// Resync, if not 0, makes it the lane of that re-sync beside the lane
	// itself: what the re-sync has settled and how far it is. Of its Head,
	// Watermark and Pruned are how far, and Hourly is when it began to list.
	// Nothing is parked in it. It is forgotten when the re-sync is over.
	Resync ResyncID
}

// Source is what is remembered of a source.
type Source struct {
	// FirstSeen is when the agent first met the source, by S3's clock.
	FirstSeen time.Time `json:"first_seen"`
	// Discovered is when discovery last completed, by S3's clock; zero if never.
	Discovered time.Time `json:"discovered,omitzero"`
	// Streams are all streams that discovery has found.
	Streams []Stream `json:"streams,omitempty"`
	// Outputs says for each output, by name, from when it gets this source.
	Outputs map[string]Begin `json:"outputs,omitempty"`
}

// Begin is from where an output gets a source. It is resolved once, when the
// two first meet, and holds for streams that are found later, too.
type Begin struct {
	// Start: an object whose stamp is earlier is too old, unless it appeared
	// after FirstSeen inside the late horizon.
	Start time.Time `json:"start"`
	// FirstSeen is when the two first met, by S3's clock.
	FirstSeen time.Time `json:"first_seen"`
}

// Head is what is remembered of a lane as a whole. The zero Head is that of a
// lane which has settled nothing yet.
type Head struct {
	// Watermark is the position up to which everything listed is settled. It
	// never goes back.
	Watermark string `json:"watermark,omitempty"`
	// Hourly and Daily are when the last completed sweep of that kind began to
	// list, by S3's clock.
	Hourly time.Time `json:"hourly,omitzero"`
	Daily  time.Time `json:"daily,omitzero"`
	// Pruned: every position below it counts as settled, and nothing below it
	// is remembered. It never goes back.
	Pruned string `json:"pruned,omitempty"`
}

// Standing is how an object stands in a lane.
type Standing int

const (
	// Open: nothing of it is settled.
	Open Standing = iota
	// Partial: some of its records are acknowledged.
	Partial
	// Parked: it, or what is left of it, is parked. It counts as settled.
	Parked
	// Settled: it is done with.
	Settled
)

// State is how an object stands in a lane, with what is acknowledged of it.
type State struct {
	Standing Standing
	Acked    Ranges // with Partial
	ETag     string // of the content that Acked counts in; "" if not known
	// Pruned, with Settled: it lies below the lane's prune line, where nothing
	// is remembered of single objects.
	Pruned bool
}

// Outcome is how an object came to be settled.
type Outcome byte

const (
	// Delivered: all of its records that pass the filter were acknowledged,
	// or are parked one by one.
	Delivered Outcome = iota
	// Gone: it is no longer in the bucket.
	Gone
	// Skipped: an operator set it aside for good.
	Skipped
)

// ParkedID names a parked entry for an operator: short, stable, safe in a
// shell.
type ParkedID string

// WholeObject, as Entry.Record, means the object and not one record of it.
const WholeObject = -1

// Entry is a parked object, or a single record of one.
type Entry struct {
	Lane     Lane
	Position string
	Record   int // from 0, or WholeObject

	Reason record.Reason
	Error  string // what went wrong, without record contents
	// At is the record at which a whole object broke, from 0; -1 if unknown.
	At int
	// Acked is what of a whole object was acknowledged before it was parked.
	Acked Ranges
	// ETag is that of the content it was found in, and which Acked and Record
	// count in; "" if not known.
	ETag string

	Attempts  int       // since it was parked, the first included
	FirstSeen time.Time // when it was parked
	NextTry   time.Time // when it is tried again; zero: only when an operator says so

	// Skipped is when an operator set it aside for good, and Remark why: zero
	// and "" as long as it waits. A skipped entry is kept as a record of that,
	// and counts as settled.
	Skipped time.Time
	Remark  string
}

// ID returns the entry's name.
func (e *Entry) ID() ParkedID {
	h := sha256.New()
	for _, s := range []string{
		string(e.Lane.Source), e.Lane.Stream.String(), e.Lane.Output, e.Position, strconv.Itoa(e.Record),
	} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return ParkedID(strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:10])))
}

// Changes is a set of changes that become durable together or not at all. The
// order in which a store applies them is that of the fields; no two of them
// concern the same object in contradiction.
type Changes struct {
	Sources map[SourceID]Source // replaces what was remembered
	Settled []ObjectSettled
	Partial []ObjectPartial
	Unpark  []Entry // lane, position and record name it
	Park    []Entry // replaces an entry of the same lane, position and record
	Heads   []LaneHead
	Covered []LaneCovered
	// Resyncs replace what was remembered of them. Of one that is over, the
	// lanes are forgotten.
	Resyncs []Resync
	// ForgetResyncs are re-syncs of which nothing is to be remembered.
	ForgetResyncs []ResyncID
}

// ObjectSettled: the object is settled; what was remembered of its ranges, and
// a parked entry of it as a whole, is forgotten. Parked entries of single
// records stay.
type ObjectSettled struct {
	Lane     Lane
	Position string
	Outcome  Outcome
}

// ObjectPartial: these records of the object are acknowledged. It replaces
// what was remembered of its ranges.
type ObjectPartial struct {
	Lane     Lane
	Position string
	Acked    Ranges
	// ETag is that of the content in which Acked counts: of an object that is
	// written over they say nothing. "" if not known.
	ETag string
}

// LaneHead: the lane stands here now. A store refuses a watermark or a prune
// line that goes back. What lies below Pruned is forgotten, parked entries
// excepted.
type LaneHead struct {
	Lane Lane
	Head Head
}

// LaneCovered: these windows of the lane are covered. It replaces what was
// remembered of them.
type LaneCovered struct {
	Lane    Lane
	Windows []Covered
}

// Empty reports whether there is nothing to make durable.
func (c *Changes) Empty() bool {
	return len(c.Sources) == 0 && len(c.Settled) == 0 && len(c.Partial) == 0 &&
		len(c.Unpark) == 0 && len(c.Park) == 0 && len(c.Heads) == 0 &&
		len(c.Covered) == 0 && len(c.Resyncs) == 0 && len(c.ForgetResyncs) == 0
}
