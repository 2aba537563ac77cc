package checkpointtest

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

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
