package plan

import (
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Settings are those of a source that decide what listing it costs.
type Settings struct {
	Refresh, IdleRefresh  time.Duration
	LookBack, LateHorizon time.Duration
	Discovery             time.Duration
	MaxListsPerMinute     int // 0 = no cap
}

// Scaled returns the settings with refresh and idle_refresh f times as long, as
// far as the configuration takes that.
func (s Settings) Scaled(f float64) Settings {
	s.Refresh = scaled(s.Refresh, f)
	s.IdleRefresh = scaled(s.IdleRefresh, f)
	return s
}

func scaled(d time.Duration, f float64) time.Duration {
	x := float64(d) * f
	if x >= float64(Longest) {
		return max(d, Longest)
	}
	return max(time.Duration(x), min(d, Shortest))
}

// Stream is what is known of how objects come to a stream.
type Stream struct {
	ID      progress.Stream
	Objects float64 // a day
	Bytes   float64 // a day, as stored
	// Gaps are the times between arrivals, as they were seen; together they
	// are as long as what was looked at. Without them arrivals are taken to be
	// even.
	Gaps []time.Duration
	Last time.Time // when the last object came; zero if that was not seen
}

// Source is one source with all that is known of it.
type Source struct {
	Name     string
	Settings Settings
	Streams  []Stream
	// DiscoveryLists is how many LISTs one discovery takes; 0 where every level
	// is pinned.
	DiscoveryLists int
	// KMS: objects are encrypted with SSE-KMS.
	KMS bool
}

// Load is what is asked of S3 and KMS in a day.
type Load struct {
	Tails, Sweeps, Discoveries float64 // LISTs
	Gets                       float64
	// KMS is how many Decrypt calls S3 makes: one a GET of an object under
	// SSE-KMS. With an S3 Bucket Key they are far fewer (Amazon S3 User Guide,
	// "Reducing the cost of SSE-KMS with Amazon S3 Bucket Keys").
	KMS          float64
	Bytes        float64 // of objects, as stored
	ListingBytes float64 // of the answers to LISTs
	// Capped: max_lists_per_minute allows fewer LISTs than the rest of the
	// settings ask for, and objects are found later.
	Capped bool
}

// Lists returns all LISTs of a day.
func (l Load) Lists() float64 { return l.Tails + l.Sweeps + l.Discoveries }

// Plus returns the sum of two loads.
func (l Load) Plus(x Load) Load {
	return Load{
		Tails: l.Tails + x.Tails, Sweeps: l.Sweeps + x.Sweeps, Discoveries: l.Discoveries + x.Discoveries,
		Gets: l.Gets + x.Gets, KMS: l.KMS + x.KMS,
		Bytes: l.Bytes + x.Bytes, ListingBytes: l.ListingBytes + x.ListingBytes,
		Capped: l.Capped || x.Capped,
	}
}

const (
	pageEntries = 1000 // S3's most
	// What an answer to ListObjectsV2 weighs: its frame with the HTTP header,
	// and one <Contents> of a CloudTrail key of 130 bytes with its ETag,
	// storage class and checksum.
	pageBytes  = 1000
	entryBytes = 430
)

// pages returns how many pages a listing of n objects takes, on average over
// what n varies by: one up to a full page, and half a page more than it fills
// from two on.
func pages(n float64) float64 {
	n /= pageEntries
	switch {
	case n <= 1:
		return 1
	case n <= 2:
		return 1.5*n - 0.5
	default:
		return n + 0.5
	}
}

// Load returns what the source asks in a day with these settings, which need
// not be its own.
func (s *Source) Load(c Settings) Load {
	steps := newLadder(c.Refresh, c.IdleRefresh)
	var sum Load
	for i := range s.Streams {
		sum = sum.Plus(s.stream(&s.Streams[i], c, steps))
	}
	sum = sum.Plus(s.DiscoveryLoad(c))
	if most := float64(c.MaxListsPerMinute) * 24 * 60; most > 0 && sum.Lists() > most {
		f := most / sum.Lists()
		sum.Tails, sum.Sweeps, sum.Discoveries = f*sum.Tails, f*sum.Sweeps, f*sum.Discoveries
		sum.ListingBytes *= f
		sum.Capped = true
	}
	return sum
}

// DiscoveryLoad returns what the discoveries of a day ask with these settings.
func (s *Source) DiscoveryLoad(c Settings) Load {
	if s.DiscoveryLists == 0 || c.Discovery <= 0 {
		return Load{}
	}
	n := float64(s.DiscoveryLists) * float64(Day) / float64(c.Discovery)
	return Load{Discoveries: n, ListingBytes: n * pageBytes}
}

// StreamLoad returns what one stream asks in a day with these settings,
// without the source's discovery and cap.
func (s *Source) StreamLoad(st *Stream, c Settings) Load {
	return s.stream(st, c, newLadder(c.Refresh, c.IdleRefresh))
}

// stream counts passes first, and then the pages that each kind of pass takes.
// A sweep takes the place of a tail, and falls due at the first pass after its
// hour or day, on average half an interval late.
func (s *Source) stream(st *Stream, c Settings, steps ladder) Load {
	n := st.passes(steps)
	every := float64(Day) / n // between two passes, ns
	// atMost is how often a day something comes that is due after d.
	atMost := func(d time.Duration) float64 {
		return min(n, float64(Day)/(float64(d)+every/2))
	}
	sweeps, dailies := atMost(Hourly), atMost(Daily)
	far := max(sweeps, atMost(c.LookBack/NearAt)) // a sweep goes over the look-back, too

	// How many objects each kind of pass lists; each goes over the ones below.
	rate := st.Objects / float64(Day) // a ns
	inFar := rate * (float64(c.LookBack) + every)
	inNear := inFar
	if inFar > pageEntries {
		inNear = rate * (float64(c.LookBack)/NearDepth + every)
	}
	inHourly := max(inFar, rate*(float64(Day)+float64(Day)/sweeps))
	inDaily := max(inHourly, rate*(float64(c.LateHorizon)+float64(Day)/dailies))

	l := Load{Gets: st.Objects, Bytes: st.Bytes}
	if s.KMS {
		l.KMS = st.Objects
	}
	// All passes as if they were near ones, and then what the deeper ones take
	// beyond that.
	l.Tails = (n-sweeps)*pages(inNear) + (far-sweeps)*(pages(inFar)-pages(inNear))
	l.Sweeps = sweeps*pages(inHourly) + dailies*(pages(inDaily)-pages(inHourly))
	// While a sweep of several pages is still in the past, a pass over the last
	// hour comes in between.
	recent := rate * float64(time.Hour)
	between := (sweeps-dailies)*min(1, pages(inHourly)-1) + dailies*min(1, pages(inDaily)-1)
	l.Sweeps += between * pages(recent)

	entries := (n-far)*inNear + (far-sweeps)*inFar + (sweeps-dailies)*inHourly + dailies*inDaily + between*recent
	l.ListingBytes = l.Lists()*pageBytes + entries*entryBytes
	return l
}

// passes returns how many passes a day go over the stream.
func (st *Stream) passes(steps ladder) float64 {
	idle := float64(Day) / float64(steps.idle)
	var n float64
	var seen time.Duration
	for _, g := range st.Gaps {
		n += steps.passes(g)
		seen += g
	}
	switch {
	case st.Objects <= 0:
		return idle
	case seen > 0:
		return n * float64(Day) / float64(seen)
	}
	return st.Objects * steps.passes(time.Duration(float64(Day)/st.Objects))
}
