package checkpointtest

import (
	"reflect"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

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
