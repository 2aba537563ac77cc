package checkpointtest

import (
	"reflect"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// aResync is a re-sync of the suite.
func aResync(id progress.ResyncID, state progress.ResyncState) progress.Resync {
	return progress.Resync{
		ID: id, From: now.AddDate(0, 0, -3), To: now.AddDate(0, 0, -2),
		Sources: []progress.SourceID{source}, Outputs: []string{"siem"}, Accounts: []string{Lane(1, "").Stream.Account},
		State: state, Created: now.Add(-time.Hour), Count: progress.ResyncCount{Objects: 3, Passed: 4, Records: 5, Bytes: 6},
	}
}

func wantResyncs(t *testing.T, s Store, want ...progress.Resync) {
	t.Helper()
	got, err := s.Resyncs()
	if err != nil || len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("re-syncs are %+v, %v; want %+v", got, err, want)
	}
}

func testResync(t *testing.T, s Store) {
	wantResyncs(t, s)
	first, second := aResync(1, progress.ResyncQueued), aResync(300, progress.ResyncQueued)
	second.Resend, second.Accounts = true, nil
	commit(t, s, progress.Changes{Resyncs: []progress.Resync{second, first}})
	wantResyncs(t, s, first, second)
	first.State, first.Began = progress.ResyncRunning, now
	commit(t, s, progress.Changes{Resyncs: []progress.Resync{first}})
	wantResyncs(t, s, first, second)
	commit(t, s, progress.Changes{ForgetResyncs: []progress.ResyncID{1, 77}})
	wantResyncs(t, s, second)
}

// What a re-sync has settled is its own, until it is over.
func testResyncLanes(t *testing.T, s Store) {
	l := Lane(1, "siem")
	mine, other := l, l
	mine.Resync, other.Resync = 7, 8
	old, older := Position(l, 50*24*time.Hour, 1), Position(l, 60*24*time.Hour, 2)
	partly := Position(l, 49*24*time.Hour, 3)
	commit(t, s, progress.Changes{
		Heads: []progress.LaneHead{{Lane: l, Head: progress.Head{
			Watermark: Position(l, 0, 1), Pruned: Position(l, 30*24*time.Hour, 1),
		}}},
	})
	head := progress.Head{Watermark: older, Pruned: older, Hourly: now}
	commit(t, s, progress.Changes{
		Settled: settled(mine, old),
		Partial: []progress.ObjectPartial{{Lane: mine, Position: partly, Acked: progress.Ranges{{From: 0, To: 9}}}},
		Heads:   []progress.LaneHead{{Lane: mine, Head: head}},
		Resyncs: []progress.Resync{aResync(7, progress.ResyncRunning), aResync(8, progress.ResyncRunning)},
	})
	commit(t, s, progress.Changes{Settled: settled(other, older)})
	for range 2 {
		wantStates(t, s, mine, map[string]progress.State{
			old: {Standing: progress.Settled}, older: {}, Position(l, 61*24*time.Hour, 0): {Standing: progress.Settled},
			partly: {Standing: progress.Partial, Acked: progress.Ranges{{From: 0, To: 9}}},
		})
		wantStates(t, s, other, map[string]progress.State{old: {}, older: {Standing: progress.Settled}, partly: {}})
		heads, err := s.ResyncHeads(7)
		if want := map[progress.Lane]progress.Head{mine: head}; err != nil || !reflect.DeepEqual(heads, want) {
			t.Errorf("heads of the re-sync are %v, %v; want %v", heads, err, want)
		}
		if heads, err := s.Heads(source, "siem"); len(heads) != 1 || heads[l.Stream].Hourly.Equal(now) || err != nil {
			t.Errorf("a re-sync's lane is among the lanes: %v, %v", heads, err)
		}
		maintain(t, s)
	}
	// When it is over its lanes are forgotten, those included that the same
	// commit has made; the lane itself stays, and so do other re-syncs.
	third := Lane(2, "siem")
	third.Resync = 7
	commit(t, s, progress.Changes{
		Settled: append(settled(third, old), settled(mine, older)...),
		Resyncs: []progress.Resync{aResync(7, progress.ResyncDone)},
	})
	for range 2 {
		wantStates(t, s, mine, map[string]progress.State{old: {}, older: {}, partly: {}})
		wantStanding(t, s, third, old, progress.Open)
		wantStanding(t, s, other, older, progress.Settled)
		wantStanding(t, s, l, old, progress.Settled) // below its prune line
		if heads, err := s.ResyncHeads(7); len(heads) != 0 || err != nil {
			t.Errorf("after it is over its heads are %v, %v", heads, err)
		}
		maintain(t, s)
	}
	// An output that is forgotten takes its lanes with it, and owes nothing for
	// them.
	commit(t, s, progress.Changes{Partial: []progress.ObjectPartial{{Lane: other, Position: partly, Acked: progress.Ranges{{From: 0, To: 9}}}}})
	if owed, err := s.Forget(source, "siem"); owed != 0 || err != nil {
		t.Errorf("forgetting dropped %d, %v", owed, err)
	}
	wantStanding(t, s, other, older, progress.Open)
	if heads, err := s.ResyncHeads(8); len(heads) != 0 || err != nil {
		t.Errorf("a forgotten output has heads in a re-sync: %v, %v", heads, err)
	}
	if heads, err := s.ResyncHeads(0); len(heads) != 0 || err != nil {
		t.Errorf("no re-sync has heads: %v, %v", heads, err)
	}
}

func testCovered(t *testing.T, s Store) {
	l, m := Lane(1, "siem"), Lane(2, "siem")
	check := func(l progress.Lane, want []progress.Covered) {
		t.Helper()
		got, err := s.Covered(l)
		if err != nil || len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("covered are %v, %v; want %v", got, err, want)
		}
	}
	check(l, nil)
	windows := []progress.Covered{
		{From: now.AddDate(-1, 0, 0), To: now.AddDate(0, -6, 0), AsOf: now.Add(-time.Hour)},
		{From: now.AddDate(0, -6, 0), To: now.AddDate(0, -3, 0), AsOf: now},
	}
	commit(t, s, progress.Changes{Covered: []progress.LaneCovered{{Lane: l, Windows: windows}, {Lane: m, Windows: windows[:1]}}})
	check(l, windows)
	maintain(t, s)
	check(m, windows[:1])
	commit(t, s, progress.Changes{Covered: []progress.LaneCovered{{Lane: l, Windows: windows[1:]}, {Lane: m}}})
	check(l, windows[1:])
	check(m, nil)
	if _, err := s.Forget(source, "siem"); err != nil {
		t.Error(err)
	}
	check(l, nil)
	commit(t, s, progress.Changes{Settled: settled(l, "x")})
	check(l, nil)
}
