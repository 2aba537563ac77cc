package progress

import (
	"slices"
	"strconv"
	"time"
)

// ResyncID names a re-sync: 1, 2, 3 … in the order in which they were asked
// for. 0 is none.
type ResyncID uint32

// String returns the id as an operator writes it.
func (id ResyncID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ResyncState is how far a re-sync is.
type ResyncState string

const (
	// ResyncQueued: it has not begun.
	ResyncQueued ResyncState = "queued"
	// ResyncRunning: it has begun and not ended, whether an agent runs or not.
	ResyncRunning ResyncState = "running"
	// ResyncDone: the whole window is settled.
	ResyncDone ResyncState = "done"
	// ResyncCancelled: an operator ended it.
	ResyncCancelled ResyncState = "cancelled"
)

// Resync is an operator's order to go over a window again, and what has come
// of it. From, inclusive, and To, exclusive, are stamps. Its progress in each
// lane is that of a lane of its own: see Lane.Resync.
type Resync struct {
	ID   ResyncID  `json:"id"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Sources and Outputs are those that it was resolved to. Of Accounts,
	// Regions and LogTypes, empty means all.
	Sources  []SourceID `json:"sources"`
	Outputs  []string   `json:"outputs"`
	Accounts []string   `json:"accounts,omitempty"`
	Regions  []string   `json:"regions,omitempty"`
	LogTypes []string   `json:"log_types,omitempty"`
	// Resend: all is sent, whether it is settled or not.
	Resend bool `json:"resend,omitempty"`

	State   ResyncState `json:"state"`
	Created time.Time   `json:"created"`
	Began   time.Time   `json:"began,omitzero"`
	Ended   time.Time   `json:"ended,omitzero"`
	Count   ResyncCount `json:"count"`
}

// ResyncCount is what a re-sync has settled so far. An object counts once for
// each output.
type ResyncCount struct {
	Objects int64 `json:"objects"` // sent, or set aside in the attempt
	Passed  int64 `json:"passed"`  // were settled already
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"` // of the objects, as stored
}

// Over reports whether nothing is left to be done of it.
func (r *Resync) Over() bool { return r.State == ResyncDone || r.State == ResyncCancelled }

// Wants reports whether the order is for that lane.
func (r *Resync) Wants(l *Lane) bool {
	all := func(in []string, x string) bool { return len(in) == 0 || slices.Contains(in, x) }
	return slices.Contains(r.Sources, l.Source) && slices.Contains(r.Outputs, l.Output) &&
		all(r.Accounts, l.Stream.Account) && all(r.Regions, l.Stream.Region) && all(r.LogTypes, l.Stream.LogType)
}

// Covered is a window of stamps, half-open, that re-syncs have gone over: all
// objects in it that had appeared before AsOf, by S3's clock, are settled.
type Covered struct {
	From, To, AsOf time.Time
}

// Cover returns the windows with one more. They stay ascending and apart; where
// two lie over each other the later AsOf holds. It leaves windows as it is.
func Cover(windows []Covered, w Covered) []Covered {
	if !w.From.Before(w.To) {
		return windows
	}
	var out []Covered
	add := func(x Covered) {
		if !x.From.Before(x.To) {
			return
		}
		if n := len(out); n > 0 && out[n-1].To.Equal(x.From) && out[n-1].AsOf.Equal(x.AsOf) {
			out[n-1].To = x.To
			return
		}
		out = append(out, x)
	}
	at := w.From // what of w lies before it is in out
	for _, x := range windows {
		if !x.To.After(w.From) {
			add(x)
			continue
		}
		if !x.From.Before(w.To) {
			add(Covered{at, w.To, w.AsOf})
			at = w.To
			add(x)
			continue
		}
		add(Covered{x.From, w.From, x.AsOf}) // empty unless x begins before w
		if x.From.After(at) {
			add(Covered{at, x.From, w.AsOf})
			at = x.From
		}
		end := minTime(x.To, w.To)
		add(Covered{at, end, maxTime(x.AsOf, w.AsOf)})
		at = end
		add(Covered{w.To, x.To, x.AsOf}) // empty unless x ends after w
	}
	if at.Before(w.To) {
		add(Covered{at, w.To, w.AsOf})
	}
	return out
}

// CoveredAt returns as of when a stamp is covered; zero if it is not.
func CoveredAt(windows []Covered, stamp time.Time) time.Time {
	i, found := slices.BinarySearchFunc(windows, stamp, func(w Covered, at time.Time) int {
		switch {
		case !w.To.After(at):
			return -1
		case w.From.After(at):
			return 1
		}
		return 0
	})
	if !found {
		return time.Time{}
	}
	return windows[i].AsOf
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
