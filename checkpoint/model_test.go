package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/checkpoint/checkpointtest"
)

// machine does the same to a store and to a plain model of it, and crashes the
// store now and then. rapid prints the seed of a failure.
type machine struct {
	t     *testing.T
	store *Store
	dir   string
	model *checkpointtest.Memory
	lanes []progress.Lane
	heads map[progress.Lane]progress.Head
	now   time.Time

	positions map[progress.Lane][]string // all that position draws

	steps *int
}

func (m *machine) reopen(t *rapid.T, dir string) {
	s, r, err := Open(dir, Options{Notice: func(string) {}, compactMin: 1 << 16})
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	if r.Rebuilt {
		t.Fatalf("a crash damaged the file: %s", r.Damage)
	}
	m.store, m.dir = s, dir
}

func allPositions(l progress.Lane) []string {
	var all []string
	for days := range 36 {
		ago := time.Duration(days) * 24 * time.Hour
		for n := range 10 {
			all = append(all, checkpointtest.Position(l, ago+time.Duration(n)*7*time.Minute, n))
		}
		all = append(all, fmt.Sprintf("odd/%d", days), fmt.Sprintf("0%d", days))
		all = append(all, checkpointtest.Position(l, ago, 0)[:11]+"odd")
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// position draws one of some hundred positions of 36 days, a few of them odd.
func (m *machine) position(t *rapid.T, l progress.Lane) string {
	days := rapid.IntRange(0, 35).Draw(t, "days ago")
	n := rapid.IntRange(0, 12).Draw(t, "object")
	pos := checkpointtest.Position(l, time.Duration(days)*24*time.Hour+time.Duration(n)*7*time.Minute, n)
	switch n {
	case 10:
		return pos[:11] + "odd" // in the day's folder, of another form
	case 11:
		return fmt.Sprintf("odd/%d", days)
	case 12:
		return fmt.Sprintf("0%d", days) // sorts before every date
	}
	return pos
}

func (m *machine) draw(t *rapid.T) *progress.Changes {
	c := &progress.Changes{}
	lane := func() progress.Lane { return rapid.SampledFrom(m.lanes).Draw(t, "lane") }
	used := map[string]bool{} // no two changes in contradiction
	object := func() (progress.Lane, string, bool) {
		l := lane()
		pos := m.position(t, l)
		key := fmt.Sprint(l, pos)
		ok := !used[key]
		used[key] = true
		return l, pos, ok
	}
	ranges := func() progress.Ranges {
		var r progress.Ranges
		for range rapid.IntRange(0, 3).Draw(t, "ranges") {
			from := rapid.IntRange(0, 500).Draw(t, "from")
			r = r.Add(from, from+rapid.IntRange(1, 50).Draw(t, "n"))
		}
		return r
	}
	etag := func() string { return rapid.SampledFrom([]string{"", `"1"`, `"2-2"`}).Draw(t, "etag") }
	for range rapid.IntRange(0, 40).Draw(t, "settled") {
		if l, pos, ok := object(); ok {
			c.Settled = append(c.Settled, progress.ObjectSettled{Lane: l, Position: pos})
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "partial") {
		if l, pos, ok := object(); ok {
			c.Partial = append(c.Partial, progress.ObjectPartial{Lane: l, Position: pos, Acked: ranges(), ETag: etag()})
		}
	}
	recordNumber := rapid.IntRange(progress.WholeObject, 2)
	for range rapid.IntRange(0, 3).Draw(t, "unpark") {
		if l, pos, ok := object(); ok {
			c.Unpark = append(c.Unpark, progress.Entry{Lane: l, Position: pos, Record: recordNumber.Draw(t, "record")})
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "park") {
		if l, pos, ok := object(); ok && l.Resync == 0 { // a re-sync parks nothing in lanes of its own
			c.Park = append(c.Park, progress.Entry{
				Lane: l, Position: pos, Record: recordNumber.Draw(t, "record"), Reason: record.Corrupt,
				Acked: ranges(), ETag: etag(), Attempts: 3, FirstSeen: m.now,
			})
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "heads") {
		l := lane()
		h := progress.Head{Watermark: m.position(t, l), Pruned: m.position(t, l), Daily: m.now}
		if rapid.IntRange(0, 9).Draw(t, "any head") > 0 { // mostly one that is taken
			old := m.heads[l]
			h.Watermark = max(h.Watermark, old.Watermark)
			if h.Pruned = max(h.Pruned, old.Pruned); h.Pruned > h.Watermark {
				h.Pruned = old.Pruned
			}
		}
		c.Heads = append(c.Heads, progress.LaneHead{Lane: l, Head: h})
	}
	if rapid.IntRange(0, 9).Draw(t, "re-sync") == 0 {
		c.Resyncs = []progress.Resync{{
			ID:    progress.ResyncID(rapid.IntRange(1, 2).Draw(t, "id")),
			State: rapid.SampledFrom([]progress.ResyncState{progress.ResyncRunning, progress.ResyncDone}).Draw(t, "state"),
		}}
	}
	if rapid.IntRange(0, 9).Draw(t, "covered") == 0 {
		c.Covered = []progress.LaneCovered{{Lane: lane(), Windows: []progress.Covered{{From: m.now, To: m.now.Add(time.Hour), AsOf: m.now}}}}
	}
	if rapid.IntRange(0, 9).Draw(t, "source") == 0 {
		c.Sources = map[progress.SourceID]progress.Source{m.lanes[0].Source: {
			FirstSeen: m.now, Outputs: map[string]progress.Begin{"siem": {Start: m.now}, "other": {Start: m.now}},
		}}
	}
	return c
}

// Commit applies a set of changes to both.
func (m *machine) Commit(t *rapid.T) {
	*m.steps++
	c := m.draw(t)
	got, want := m.store.Commit(c), m.model.Commit(c)
	if (got == nil) != (want == nil) || got != nil && !errors.Is(got, ErrBackward) {
		t.Fatalf("the store says %v, the model %v", got, want)
	}
	if got == nil {
		for _, h := range c.Heads {
			m.heads[h.Lane] = h.Head
		}
		for _, r := range c.Resyncs {
			maps.DeleteFunc(m.heads, func(l progress.Lane, _ progress.Head) bool { return r.Over() && l.Resync == r.ID })
		}
	}
}

// Maintain lets time pass and maintains.
func (m *machine) Maintain(t *rapid.T) {
	*m.steps++
	m.now = m.now.Add(time.Duration(rapid.IntRange(-50, 50).Draw(t, "hours")) * time.Hour)
	if err := m.store.Maintain(m.t.Context(), m.now); err != nil {
		t.Fatalf("maintaining: %v", err)
	}
}

// Forget drops an output.
func (m *machine) Forget(t *rapid.T) {
	*m.steps++
	if rapid.IntRange(0, 5).Draw(t, "really") != 0 {
		return
	}
	l := rapid.SampledFrom(m.lanes).Draw(t, "lane")
	got, err := m.store.Forget(l.Source, l.Output)
	want, _ := m.model.Forget(l.Source, l.Output)
	if err != nil || got != want {
		t.Fatalf("forgetting dropped %d, %v; want %d", got, err, want)
	}
	maps.DeleteFunc(m.heads, func(x progress.Lane, _ progress.Head) bool {
		return x.Source == l.Source && x.Output == l.Output
	})
}

// Crash leaves the file as it is between two commits, and opens a copy.
func (m *machine) Crash(t *rapid.T) {
	*m.steps++
	m.restart(t, m.read(t))
}

// CrashInCommit leaves the file as it is when a commit has written some of its
// pages, and not yet the meta page. What opens must be the state before.
func (m *machine) CrashInCommit(t *rapid.T) {
	*m.steps++
	c := m.draw(t)
	before := m.read(t)
	if m.store.Commit(c) != nil {
		return // refused: nothing was written
	}
	after := m.read(t)
	if c.Empty() {
		return
	}
	const page = 4096
	size := os.Getpagesize()
	if size != page {
		t.Skip("the page size is not 4096")
	}
	torn := slices.Clone(after)
	copy(torn[:2*page], before[:2*page])
	for at := 2 * page; at < len(before); at += page {
		if rapid.Bool().Draw(t, "lost") {
			copy(torn[at:at+page], before[at:at+page])
		}
	}
	m.restart(t, torn)
}

func (m *machine) restart(t *rapid.T, file []byte) {
	if err := m.store.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
	dir := m.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.RemoveAll(m.dir)
	m.reopen(t, dir)
}

func (m *machine) read(t *rapid.T) []byte {
	b, err := os.ReadFile(m.store.path())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Check compares everything that can be seen.
func (m *machine) Check(t *rapid.T) {
	for _, l := range m.lanes {
		positions := m.positions[l]
		got, err := m.store.Lookup(l, positions, nil)
		if err != nil {
			t.Fatalf("looking up: %v", err)
		}
		want, _ := m.model.Lookup(l, positions, nil)
		for i := range want {
			if got[i].Standing != want[i].Standing || got[i].Acked.String() != want[i].Acked.String() || got[i].ETag != want[i].ETag ||
				got[i].Pruned != want[i].Pruned {
				t.Fatalf("%s %q stands %v, want %v", l.Output, positions[i], got[i], want[i])
			}
		}
		heads, err := m.store.Heads(l.Source, l.Output)
		wantHeads, _ := m.model.Heads(l.Source, l.Output)
		if err != nil || !reflect.DeepEqual(heads, wantHeads) {
			t.Fatalf("heads are %v, %v; want %v", heads, err, wantHeads)
		}
		windows, err := m.store.Covered(l)
		wantWindows, _ := m.model.Covered(l)
		if err != nil || !reflect.DeepEqual(windows, wantWindows) {
			t.Fatalf("covered are %v, %v; want %v", windows, err, wantWindows)
		}
		resyncHeads, err := m.store.ResyncHeads(l.Resync)
		wantResyncHeads, _ := m.model.ResyncHeads(l.Resync)
		if err != nil || !reflect.DeepEqual(resyncHeads, wantResyncHeads) {
			t.Fatalf("heads of the re-sync are %v, %v; want %v", resyncHeads, err, wantResyncHeads)
		}
		src, found, err := m.store.Source(l.Source)
		wantSrc, wantFound, _ := m.model.Source(l.Source)
		if err != nil || found != wantFound || len(src.Outputs) != len(wantSrc.Outputs) {
			t.Fatalf("the source is %v, %v; want %v", src, err, wantSrc)
		}
	}
	all := func(list func(func(progress.Entry) bool) error) map[progress.ParkedID]string {
		entries := map[progress.ParkedID]string{}
		if err := list(func(e progress.Entry) bool { entries[e.ID()] = fmt.Sprint(e); return true }); err != nil {
			t.Fatalf("listing what is parked: %v", err)
		}
		return entries
	}
	if got, want := all(m.store.Parked), all(m.model.Parked); !maps.Equal(got, want) {
		t.Fatalf("parked are %v, want %v", got, want)
	}
}

// TestInvariant1_Model compares the store with a plain model over random
// commits, maintenance and crashes, also in the middle of a commit.
func TestInvariant1_Model(t *testing.T) {
	steps := 0
	positions := map[progress.Stream][]string{}
	for n := range 3 {
		l := checkpointtest.Lane(n, "")
		positions[l.Stream] = allPositions(l)
	}
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{
			t: t, model: checkpointtest.NewMemory(), heads: map[progress.Lane]progress.Head{},
			now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), steps: &steps,
		}
		for n := range 3 {
			m.lanes = append(m.lanes, checkpointtest.Lane(n, "siem"), checkpointtest.Lane(n, "other"))
			resync := checkpointtest.Lane(n, "siem")
			resync.Resync = progress.ResyncID(1 + n%2)
			m.lanes = append(m.lanes, resync)
		}
		m.positions = map[progress.Lane][]string{}
		for _, l := range m.lanes {
			m.positions[l] = positions[l.Stream]
		}
		m.reopen(rt, t.TempDir())
		defer func() {
			wellFormed(t, m.store)
			_ = m.store.Close()
			_ = os.RemoveAll(m.dir)
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"commit": m.Commit, "commit again": m.Commit, "commit more": m.Commit, "maintain": m.Maintain,
			"forget": m.Forget, "crash": m.Crash, "crash in commit": m.CrashInCommit, "": m.Check,
		})
	})
	t.Logf("%d steps", steps)
}
