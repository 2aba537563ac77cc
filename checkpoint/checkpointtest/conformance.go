// Package checkpointtest holds a store of progress to what the agent relies
// on: Run is the conformance suite that every store passes, Memory a plain one
// that injects failures.
package checkpointtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Store is what Run holds a store to: the agent's interfaces together.
type Store interface {
	Source(id progress.SourceID) (progress.Source, bool, error)
	Heads(id progress.SourceID, output string) (map[progress.Stream]progress.Head, error)
	Lookup(lane progress.Lane, positions []string, into []progress.State) ([]progress.State, error)
	Parked(yield func(progress.Entry) bool) error
	Commit(c *progress.Changes) error
	Forget(id progress.SourceID, output string) (owed int, err error)
	Maintain(ctx context.Context, now time.Time) error
	Resyncs() ([]progress.Resync, error)
	ResyncHeads(id progress.ResyncID) (map[progress.Lane]progress.Head, error)
	Covered(l progress.Lane) ([]progress.Covered, error)
	Days(id progress.SourceID, output string, from time.Time) (map[progress.Stream]map[string]int64, error)
}

// now is when the suite plays, by S3's clock.
var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const source = progress.SourceID("acme-logs/prefix")

// Lane returns a lane of the suite: the n-th stream for an output.
func Lane(n int, output string) progress.Lane {
	return progress.Lane{
		Source: source,
		Stream: progress.Stream{Account: fmt.Sprintf("%012d", n), LogType: "CloudTrail", Region: "eu-central-1"},
		Output: output,
	}
}

// Position returns the position of an object of a lane of the suite, with a
// stamp so long before now.
func Position(l progress.Lane, ago time.Duration, unique int) string {
	at := now.Add(-ago)
	return fmt.Sprintf("%s/%s_%s_%s_%s_%016d.json.gz", at.Format("2006/01/02"), l.Stream.Account,
		l.Stream.LogType, l.Stream.Region, at.Format("20060102T1504Z"), unique)
}

// Run runs the suite; open returns an empty store and sees to its end.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s Store)
	}{
		{"Empty", testEmpty},
		{"Source", testSource},
		{"Settle", testSettle},
		{"SettleOddPositions", testOddPositions},
		{"Partial", testPartial},
		{"Park", testPark},
		{"ParkMany", testParkMany},
		{"Heads", testHeads},
		{"Invariant4_NeverBackward", testBackward},
		{"Prune", testPrune},
		{"Maintain", testMaintain},
		{"MaintainCancelled", testMaintainCancelled},
		{"Forget", testForget},
		{"LanesApart", testLanesApart},
		{"Days", testDays},
		{"Concurrent", testConcurrent},
		{"Resync", testResync},
		{"ResyncLanes", testResyncLanes},
		{"Covered", testCovered},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func commit(t *testing.T, s Store, c progress.Changes) {
	t.Helper()
	if err := s.Commit(&c); err != nil {
		t.Fatalf("committing: %v", err)
	}
}

func maintain(t *testing.T, s Store) {
	t.Helper()
	if err := s.Maintain(t.Context(), now); err != nil {
		t.Fatalf("maintaining: %v", err)
	}
}

// wantStates looks up all the positions at once.
func wantStates(t *testing.T, s Store, l progress.Lane, want map[string]progress.State) {
	t.Helper()
	positions := make([]string, 0, len(want))
	for pos := range want {
		positions = append(positions, pos)
	}
	slices.Sort(positions)
	into := make([]progress.State, 3) // what was in it must not shine through
	into[0].Standing = progress.Parked
	got, err := s.Lookup(l, positions, into)
	if err != nil {
		t.Fatalf("looking up: %v", err)
	}
	if len(got) != len(positions) {
		t.Fatalf("looking up %d positions gave %d states", len(positions), len(got))
	}
	for i, pos := range positions {
		w := want[pos]
		if got[i].Standing != w.Standing || got[i].Acked.String() != w.Acked.String() || got[i].ETag != w.ETag || w.Pruned && !got[i].Pruned {
			t.Errorf("%s %q stands %v, want %v", l.Output, pos, got[i], w)
		}
	}
}

func wantStanding(t *testing.T, s Store, l progress.Lane, pos string, want progress.Standing) {
	t.Helper()
	wantStates(t, s, l, map[string]progress.State{pos: {Standing: want}})
}

func parked(t *testing.T, s Store) map[progress.ParkedID]progress.Entry {
	t.Helper()
	all := map[progress.ParkedID]progress.Entry{}
	err := s.Parked(func(e progress.Entry) bool {
		if _, ok := all[e.ID()]; ok {
			t.Errorf("entry %q %d comes twice", e.Position, e.Record)
		}
		all[e.ID()] = e
		return true
	})
	if err != nil {
		t.Fatalf("listing what is parked: %v", err)
	}
	return all
}

func settled(l progress.Lane, positions ...string) []progress.ObjectSettled {
	var out []progress.ObjectSettled
	for _, p := range positions {
		out = append(out, progress.ObjectSettled{Lane: l, Position: p})
	}
	return out
}

func testEmpty(t *testing.T, s Store) {
	l := Lane(1, "siem")
	if _, found, err := s.Source(source); found || err != nil {
		t.Errorf("an empty store knows a source: %v, %v", found, err)
	}
	if heads, err := s.Heads(source, "siem"); len(heads) != 0 || err != nil {
		t.Errorf("an empty store knows lanes: %v, %v", heads, err)
	}
	wantStanding(t, s, l, Position(l, 0, 1), progress.Open)
	if got, err := s.Lookup(l, nil, nil); len(got) != 0 || err != nil {
		t.Errorf("looking up nothing gave %v, %v", got, err)
	}
	if len(parked(t, s)) != 0 {
		t.Error("an empty store has parked entries")
	}
	if owed, err := s.Forget(source, "siem"); owed != 0 || err != nil {
		t.Errorf("forgetting nothing: %d, %v", owed, err)
	}
	commit(t, s, progress.Changes{})
	maintain(t, s)
}

// One writes and maintains, others read: each sees all of a commit or nothing.
func testConcurrent(t *testing.T, s Store) {
	l := Lane(1, "siem")
	stop := make(chan struct{})
	done := make(chan struct{})
	const pairs = 60
	positions := make([]string, 2*pairs)
	for i := range positions {
		positions[i] = Position(l, time.Duration(len(positions)-i)*time.Hour, i)
	}
	go func() {
		defer close(done)
		var states []progress.State
		for {
			select {
			case <-stop:
				return
			default:
			}
			var err error
			if states, err = s.Lookup(l, positions, states); err != nil {
				t.Errorf("looking up: %v", err)
				return
			}
			for i := range pairs {
				if states[i].Standing != states[i+pairs].Standing {
					t.Errorf("half of a commit is seen: %v and %v", states[i], states[i+pairs])
					return
				}
			}
		}
	}()
	for i := range pairs {
		commit(t, s, progress.Changes{
			Settled: settled(l, positions[i], positions[i+pairs]),
			Heads:   []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: positions[i]}}},
		})
		if i%10 == 0 {
			maintain(t, s)
		}
	}
	close(stop)
	<-done
}
