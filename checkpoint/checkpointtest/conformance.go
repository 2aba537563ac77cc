// Package checkpointtest holds a store of progress to what the agent relies
// on: Run is the conformance suite that every store passes, Memory a plain one
// that injects failures.
package checkpointtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
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

func testSource(t *testing.T, s Store) {
	want := progress.Source{
		FirstSeen:  now.Add(-time.Hour + 123456789),
		Discovered: now,
		Streams:    []progress.Stream{Lane(1, "").Stream, {Organization: "o-abc", Account: "1", LogType: "x", Region: "y"}},
		Outputs:    map[string]progress.Begin{"siem": {Start: now.AddDate(0, 0, -90), FirstSeen: now}},
	}
	commit(t, s, progress.Changes{Sources: map[progress.SourceID]progress.Source{source: want, "other/": {}}})
	got, found, err := s.Source(source)
	if err != nil || !found || !reflect.DeepEqual(got, want) {
		t.Errorf("source came back as %+v, %v, %v; want %+v", got, found, err, want)
	}
	want.Streams = want.Streams[:1]
	commit(t, s, progress.Changes{Sources: map[progress.SourceID]progress.Source{source: want}})
	if got, _, _ := s.Source(source); len(got.Streams) != 1 {
		t.Errorf("a source is not replaced: %+v", got)
	}
	if got, found, err := s.Source("other/"); !found || err != nil || !got.FirstSeen.IsZero() {
		t.Errorf("the zero source came back as %+v, %v, %v", got, found, err)
	}
}

func testSettle(t *testing.T, s Store) {
	l := Lane(1, "siem")
	var positions []string
	want := map[string]progress.State{}
	for i := range 500 {
		pos := Position(l, time.Duration(i)*13*time.Minute, i)
		want[pos] = progress.State{}
		if i%2 == 0 {
			positions = append(positions, pos)
			want[pos] = progress.State{Standing: progress.Settled}
		}
	}
	commit(t, s, progress.Changes{Settled: settled(l, positions[:100]...)})
	commit(t, s, progress.Changes{Settled: settled(l, positions[50:]...)}) // some again
	wantStates(t, s, l, want)
	wantStanding(t, s, Lane(1, "other"), positions[0], progress.Open)
	wantStanding(t, s, Lane(2, "siem"), positions[0], progress.Open)
}

// Whatever S3 allows as a key is a position.
func testOddPositions(t *testing.T, s Store) {
	l := Lane(1, "siem")
	name := strings.TrimPrefix(Position(l, 0, 7), "2026/11/20/")
	odd := []string{
		"", "x", "2026/11/20/", "2026/11/20/x", "2026/13/20/" + name, "2026/11/31/" + name, "2026/11/19/" + name,
		"2026/11/2/" + name, "9999/11/20/" + name, "0001/01/01/" + name, "2026/11/20/" + strings.ToUpper(name),
		"2026/11/20/" + strings.Replace(name, "Z_", "Z", 1), "2026/11/20/" + name + ".json.gz",
		"2026/11/20/" + strings.Replace(name, "T1200Z", "T1260Z", 1), "é\x00\xff\n", strings.Repeat("k", 1024),
		"2026/11/20/" + strings.Replace(name, "eu-central-1", "eu-central-2", 1), "2026/11/20/a/b/" + name,
	}
	want := map[string]progress.State{}
	for i, pos := range odd {
		want[pos] = progress.State{}
		if i%2 == 0 {
			commit(t, s, progress.Changes{Settled: settled(l, pos)})
			want[pos] = progress.State{Standing: progress.Settled}
		}
	}
	wantStates(t, s, l, want)
	var park []progress.Entry
	for i, pos := range odd {
		if i%2 == 1 {
			park = append(park, progress.Entry{Lane: l, Position: pos, Record: i - 2, Reason: record.Corrupt})
		}
	}
	commit(t, s, progress.Changes{Park: park})
	all := parked(t, s)
	for _, e := range park {
		if got, ok := all[e.ID()]; !ok || !reflect.DeepEqual(got, e) {
			t.Errorf("parked %+v came back as %+v, %v", e, got, ok)
		}
	}
}

func testPartial(t *testing.T, s Store) {
	l := Lane(1, "siem")
	a, b := Position(l, time.Hour, 1), Position(l, time.Hour, 2)
	acked := func(from, to int) progress.Ranges { return progress.Ranges(nil).Add(from, to) }
	commit(t, s, progress.Changes{Partial: []progress.ObjectPartial{
		{Lane: l, Position: a, Acked: acked(0, 10).Add(20, 30).Add(100_000, 100_001)},
		{Lane: l, Position: b, Acked: acked(5, 6), ETag: `"0f-2"`},
	}})
	wantStates(t, s, l, map[string]progress.State{
		a: {Standing: progress.Partial, Acked: acked(0, 10).Add(20, 30).Add(100_000, 100_001)},
		b: {Standing: progress.Partial, Acked: acked(5, 6), ETag: `"0f-2"`},
	})
	commit(t, s, progress.Changes{
		Partial: []progress.ObjectPartial{{Lane: l, Position: a, Acked: acked(0, 40)}},
		Settled: settled(l, b),
	})
	wantStates(t, s, l, map[string]progress.State{
		a: {Standing: progress.Partial, Acked: acked(0, 40)},
		b: {Standing: progress.Settled},
	})
	// Nothing acknowledged is the same as nothing remembered.
	commit(t, s, progress.Changes{Partial: []progress.ObjectPartial{{Lane: l, Position: a}}})
	wantStanding(t, s, l, a, progress.Open)
	// What settles again while it is sent again stays settled.
	commit(t, s, progress.Changes{Partial: []progress.ObjectPartial{{Lane: l, Position: b, Acked: acked(0, 2)}}})
	wantStanding(t, s, l, b, progress.Settled)
}

func testPark(t *testing.T, s Store) {
	l := Lane(1, "siem")
	pos := Position(l, time.Hour, 1)
	object := progress.Entry{
		Lane: l, Position: pos, Record: progress.WholeObject, Reason: record.NotJSON, Error: "at record 50", At: 50,
		Acked: progress.Ranges{{From: 0, To: 50}}, ETag: `"0f"`, Attempts: 1, FirstSeen: now, NextTry: now.Add(time.Hour),
	}
	one := progress.Entry{Lane: l, Position: pos, Record: 7, Reason: record.Oversize, At: -1, FirstSeen: now}
	commit(t, s, progress.Changes{
		Partial: []progress.ObjectPartial{{Lane: l, Position: pos, Acked: progress.Ranges{{From: 0, To: 50}}}},
		Park:    []progress.Entry{object, one},
	})
	wantStanding(t, s, l, pos, progress.Parked)
	all := parked(t, s)
	for _, e := range []progress.Entry{object, one} {
		if got := all[e.ID()]; !reflect.DeepEqual(got, e) {
			t.Errorf("parked %+v came back as %+v", e, got)
		}
	}
	object.Attempts, object.NextTry = 2, time.Time{}
	commit(t, s, progress.Changes{Park: []progress.Entry{object}})
	if all = parked(t, s); len(all) != 2 || all[object.ID()].Attempts != 2 || !all[object.ID()].NextTry.IsZero() {
		t.Errorf("an entry is not replaced: %+v", all)
	}
	// Skipped: it is kept with the remark, and stands as before.
	object.Skipped, object.Remark = now.Add(time.Minute), "known bad: ticket 7\n\x00é"
	commit(t, s, progress.Changes{Park: []progress.Entry{object}})
	if got := parked(t, s)[object.ID()]; !reflect.DeepEqual(got, object) {
		t.Errorf("skipped %+v came back as %+v", object, got)
	}
	wantStanding(t, s, l, pos, progress.Parked)
	object.Skipped, object.Remark = time.Time{}, ""
	commit(t, s, progress.Changes{Park: []progress.Entry{object}})
	if got := parked(t, s)[object.ID()]; !reflect.DeepEqual(got, object) {
		t.Errorf("what is no longer skipped came back as %+v", got)
	}
	// Settled: the object's entry goes, the record's stays.
	commit(t, s, progress.Changes{Settled: settled(l, pos)})
	wantStanding(t, s, l, pos, progress.Settled)
	if all = parked(t, s); len(all) != 1 || all[one.ID()].Record != 7 {
		t.Errorf("after settling the object these are parked: %+v", all)
	}
	commit(t, s, progress.Changes{Unpark: []progress.Entry{{Lane: l, Position: pos, Record: 7}}})
	if all = parked(t, s); len(all) != 0 {
		t.Errorf("after unparking these are parked: %+v", all)
	}
	// Unparking what is not parked, in a lane that does not exist either.
	commit(t, s, progress.Changes{Unpark: []progress.Entry{one, {Lane: Lane(9, "siem"), Position: pos}}})
	if heads, _ := s.Heads(source, "siem"); len(heads) != 1 {
		t.Errorf("unparking made a lane: %v", heads)
	}
	// A parked object that is unparked and not settled is open again.
	other := Position(l, time.Hour, 2)
	object.Position = other
	commit(t, s, progress.Changes{Park: []progress.Entry{object}})
	commit(t, s, progress.Changes{Unpark: []progress.Entry{object}})
	wantStanding(t, s, l, other, progress.Open)
	// One that was settled and is parked after all is parked until then.
	object.Position = pos
	commit(t, s, progress.Changes{Park: []progress.Entry{object}})
	wantStanding(t, s, l, pos, progress.Parked)
	commit(t, s, progress.Changes{Unpark: []progress.Entry{object}})
	wantStanding(t, s, l, pos, progress.Settled)
}

func testParkMany(t *testing.T, s Store) {
	l := Lane(1, "siem")
	const n = 1500
	var c progress.Changes
	for i := range n {
		c.Park = append(c.Park, progress.Entry{Lane: l, Position: Position(l, 0, i/2), Record: i%2 - 1, At: i})
	}
	commit(t, s, c)
	if got := len(parked(t, s)); got != n {
		t.Errorf("%d entries are parked, want %d", got, n)
	}
	seen := 0
	if err := s.Parked(func(progress.Entry) bool { seen++; return seen < 300 }); err != nil || seen != 300 {
		t.Errorf("stopped after %d entries, %v", seen, err)
	}
	// The store may be used while it lists.
	c = progress.Changes{}
	err := s.Parked(func(e progress.Entry) bool {
		c.Unpark = append(c.Unpark, e)
		if len(c.Unpark) == 100 {
			commit(t, s, c)
			c.Unpark = nil
		}
		return true
	})
	if left := len(parked(t, s)); err != nil || left != 0 {
		t.Errorf("unparking while listing left %d, %v", left, err)
	}
}

func testHeads(t *testing.T, s Store) {
	l, m := Lane(1, "siem"), Lane(2, "siem")
	h := progress.Head{
		Watermark: Position(l, time.Hour, 1), Pruned: Position(l, 40*24*time.Hour, 1),
		Hourly: now.Add(-time.Minute), Daily: now.Add(-time.Hour + 5),
	}
	commit(t, s, progress.Changes{
		Settled: settled(m, Position(m, 0, 1)),
		Heads:   []progress.LaneHead{{Lane: l, Head: progress.Head{}}, {Lane: l, Head: h}},
	})
	commit(t, s, progress.Changes{Heads: []progress.LaneHead{{Lane: Lane(1, "other"), Head: h}}})
	got, err := s.Heads(source, "siem")
	want := map[progress.Stream]progress.Head{l.Stream: h, m.Stream: {}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("heads are %+v, %v; want %+v", got, err, want)
	}
	if got, _ := s.Heads("acme-logs/", "siem"); len(got) != 0 {
		t.Errorf("another source has heads: %v", got)
	}
}

func testBackward(t *testing.T, s Store) {
	l := Lane(1, "siem")
	at := func(days int) string { return Position(l, time.Duration(days)*24*time.Hour, 0) }
	head := func(watermark, pruned string) []progress.LaneHead {
		return []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: watermark, Pruned: pruned}}}
	}
	commit(t, s, progress.Changes{Heads: head(at(5), at(20))})
	for name, h := range map[string][]progress.LaneHead{
		"watermark back":           head(at(6), at(20)),
		"watermark gone":           head("", ""),
		"prune line back":          head(at(5), at(21)),
		"prune line past the mark": head(at(5), at(4)),
		"back within one set":      append(head(at(3), at(20)), head(at(4), at(20))...),
	} {
		pos := Position(l, 0, 1)
		err := s.Commit(&progress.Changes{Settled: settled(l, pos), Heads: h})
		if err == nil {
			t.Errorf("%s is taken", name)
		}
		wantStanding(t, s, l, pos, progress.Open) // nothing of it was done
	}
	if got, _ := s.Heads(source, "siem"); got[l.Stream].Watermark != at(5) {
		t.Errorf("the watermark moved to %v", got)
	}
	commit(t, s, progress.Changes{Heads: head(at(5), at(5))})
}

func testPrune(t *testing.T, s Store) {
	l := Lane(1, "siem")
	day := 24 * time.Hour
	old, late, edge, young := Position(l, 40*day, 1), Position(l, 35*day, 2), Position(l, 30*day, 3), Position(l, day, 4)
	whole := progress.Entry{Lane: l, Position: old, Record: progress.WholeObject, Reason: record.Archived}
	commit(t, s, progress.Changes{
		Settled: settled(l, late, young),
		Partial: []progress.ObjectPartial{{Lane: l, Position: edge, Acked: progress.Ranges{{From: 0, To: 1}}}},
		Park:    []progress.Entry{whole},
	})
	commit(t, s, progress.Changes{Heads: []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: young, Pruned: edge}}}})
	for range 2 {
		wantStates(t, s, l, map[string]progress.State{
			old: {Standing: progress.Settled, Pruned: true}, late: {Standing: progress.Settled, Pruned: true},
			Position(l, 36*day, 9): {Standing: progress.Settled, Pruned: true}, // never seen, below the line
			edge:                   {Standing: progress.Partial, Acked: progress.Ranges{{From: 0, To: 1}}},
			Position(l, 29*day, 9): {}, young: {Standing: progress.Settled},
		})
		if all := parked(t, s); len(all) != 1 || all[whole.ID()].Position != old {
			t.Errorf("a parked entry did not survive pruning: %+v", all)
		}
		maintain(t, s)
	}
	// What happens below the line afterwards leaves no trace.
	commit(t, s, progress.Changes{
		Settled: settled(l, old),
		Partial: []progress.ObjectPartial{{Lane: l, Position: late, Acked: progress.Ranges{{From: 0, To: 1}}}},
	})
	wantStates(t, s, l, map[string]progress.State{old: {Standing: progress.Settled}, late: {Standing: progress.Settled}})
	if len(parked(t, s)) != 0 {
		t.Error("settling below the prune line left the parked entry")
	}
}

// Maintain changes nothing that can be seen.
func testMaintain(t *testing.T, s Store) {
	l, m := Lane(1, "siem"), Lane(2, "siem")
	want := map[string]progress.State{}
	var c progress.Changes
	for i := range 10_000 {
		pos := Position(l, time.Duration(i)*3*time.Minute, i) // some 20 days
		want[pos] = progress.State{}
		if i%3 != 0 {
			want[pos] = progress.State{Standing: progress.Settled}
			c.Settled = append(c.Settled, settled(l, pos)...)
			c.Settled = append(c.Settled, settled(m, Position(m, time.Duration(i)*time.Minute, i))...)
		}
	}
	commit(t, s, c)
	head := func(ago time.Duration) progress.Changes {
		return progress.Changes{Heads: []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: Position(l, ago, 0)}}}}
	}
	for _, ago := range []time.Duration{400 * time.Hour, 100 * time.Hour, 0} {
		commit(t, s, head(ago))
		maintain(t, s)
		wantStates(t, s, l, want)
	}
	// Late ones in days that were packed, some of them settled already.
	c = progress.Changes{}
	i := 0
	for pos := range want {
		if i++; i%4 == 0 {
			c.Settled = append(c.Settled, settled(l, pos)...)
			want[pos] = progress.State{Standing: progress.Settled}
		}
	}
	commit(t, s, c)
	wantStates(t, s, l, want)
	maintain(t, s)
	wantStates(t, s, l, want)
	wantStanding(t, s, m, Position(m, 5*time.Minute, 5), progress.Settled)
	wantStanding(t, s, m, Position(m, 5*time.Minute, 6), progress.Open)
}

func testMaintainCancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Maintain(ctx, now); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("maintaining with a context that ended: %v", err)
	}
}

func testForget(t *testing.T, s Store) {
	l, m, other := Lane(1, "siem"), Lane(2, "siem"), Lane(1, "other")
	pos, inFlight := Position(l, time.Hour, 1), Position(l, time.Hour, 2)
	entry := func(l progress.Lane) progress.Entry {
		return progress.Entry{Lane: l, Position: pos, Record: 3, Reason: record.Refused}
	}
	commit(t, s, progress.Changes{
		Sources: map[progress.SourceID]progress.Source{source: {
			FirstSeen: now, Outputs: map[string]progress.Begin{"siem": {Start: now}, "other": {Start: now}},
		}},
		Settled: append(settled(l, pos), append(settled(m, pos), settled(other, pos)...)...),
		Partial: []progress.ObjectPartial{{Lane: l, Position: inFlight, Acked: progress.Ranges{{From: 0, To: 1}}}},
		Park:    []progress.Entry{entry(l), entry(m), entry(other)},
	})
	owed, err := s.Forget(source, "siem")
	if err != nil || owed != 3 {
		t.Errorf("forgetting dropped %d, %v; want 3", owed, err)
	}
	for range 2 {
		for _, x := range []progress.Lane{l, m} {
			wantStanding(t, s, x, pos, progress.Open)
		}
		wantStanding(t, s, l, inFlight, progress.Open)
		wantStanding(t, s, other, pos, progress.Settled)
		if heads, _ := s.Heads(source, "siem"); len(heads) != 0 {
			t.Errorf("forgotten lanes have heads: %v", heads)
		}
		if all := parked(t, s); len(all) != 1 || all[(&progress.Entry{Lane: other, Position: pos, Record: 3}).ID()].Record != 3 {
			t.Errorf("after forgetting these are parked: %+v", all)
		}
		src, found, _ := s.Source(source)
		if _, ok := src.Outputs["siem"]; ok || !found || len(src.Outputs) != 1 {
			t.Errorf("after forgetting the source is %+v", src)
		}
		maintain(t, s)
	}
	// An output of this name begins anew.
	commit(t, s, progress.Changes{Settled: settled(l, inFlight)})
	wantStates(t, s, l, map[string]progress.State{pos: {}, inFlight: {Standing: progress.Settled}})
}

// How many objects of each day are settled is remembered, also where the
// objects themselves are not any more.
func testDays(t *testing.T, s Store) {
	l, m, other := Lane(1, "siem"), Lane(2, "siem"), Lane(1, "other")
	day := 24 * time.Hour
	want := func(want map[progress.Stream]map[string]int64, from time.Time) {
		t.Helper()
		got, err := s.Days(source, "siem", from)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("the days are %v, %v; want %v", got, err, want)
		}
	}
	want(map[progress.Stream]map[string]int64{}, now.Add(-30*day))
	var c progress.Changes
	for i := range 5 {
		c.Settled = append(c.Settled, settled(l, Position(l, 3*day, i))...)
	}
	c.Settled = append(c.Settled, settled(l, Position(l, 2*day, 9))...)
	c.Settled = append(c.Settled, settled(m, Position(m, 2*day, 9), "odd/place")...)
	c.Settled = append(c.Settled, settled(other, Position(other, 3*day, 1))...)
	commit(t, s, c)
	commit(t, s, c) // the same again changes nothing
	at := func(ago time.Duration) string { return now.Add(-ago).Format(time.DateOnly) }
	all := map[progress.Stream]map[string]int64{
		l.Stream: {at(3 * day): 5, at(2 * day): 1}, m.Stream: {at(2 * day): 1},
	}
	want(all, now.Add(-30*day))
	want(all, now.Add(-3*day))
	want(map[progress.Stream]map[string]int64{l.Stream: {at(2 * day): 1}, m.Stream: {at(2 * day): 1}}, now.Add(-2*day))
	head := progress.Head{Watermark: Position(l, 0, 0), Pruned: Position(l, day, 0)}
	commit(t, s, progress.Changes{Heads: []progress.LaneHead{{Lane: l, Head: head}}})
	maintain(t, s)
	want(all, now.Add(-30*day))
	if _, err := s.Forget(source, "siem"); err != nil {
		t.Fatal(err)
	}
	want(map[progress.Stream]map[string]int64{}, now.Add(-30*day))
	maintain(t, s)
	want(map[progress.Stream]map[string]int64{}, now.Add(-30*day))
}

// Lanes whose parts run together when they are written one behind the other.
func testLanesApart(t *testing.T, s Store) {
	lanes := []progress.Lane{
		{Source: "a", Stream: progress.Stream{Organization: "b", Account: "c", LogType: "d", Region: "e"}, Output: "f"},
		{Source: "ab", Stream: progress.Stream{Account: "c", LogType: "d", Region: "e"}, Output: "f"},
		{Source: "a", Stream: progress.Stream{Account: "bc", LogType: "d", Region: "e"}, Output: "f"},
		{Source: "a", Stream: progress.Stream{Account: "b", LogType: "cd", Region: "e"}, Output: "f"},
		{Source: "a", Stream: progress.Stream{Account: "b", LogType: "c", Region: "de"}, Output: "f"},
		{Source: "a", Stream: progress.Stream{Account: "b", LogType: "c", Region: "d"}, Output: "ef"},
		{Source: "a\x00", Stream: progress.Stream{Account: "b", LogType: "c", Region: "d"}, Output: "ef"},
		{},
	}
	for i, l := range lanes {
		commit(t, s, progress.Changes{Settled: settled(l, fmt.Sprint(i))})
	}
	for i, l := range lanes {
		want := map[string]progress.State{}
		for j := range lanes {
			want[fmt.Sprint(j)] = progress.State{}
		}
		want[fmt.Sprint(i)] = progress.State{Standing: progress.Settled}
		wantStates(t, s, l, want)
	}
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
