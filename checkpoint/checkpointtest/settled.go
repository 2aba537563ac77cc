package checkpointtest

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

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
