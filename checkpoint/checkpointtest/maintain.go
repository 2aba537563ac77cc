package checkpointtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

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
