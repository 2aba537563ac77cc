package checkpoint

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
)

var update = flag.Bool("update", false, "write the file of today's version in testdata anew")

func TestInvariant12_SecondAgentIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir, Options{})
	began := time.Now()
	_, _, err := Open(dir, Options{})
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), fmt.Sprintf("another agent: process %d since 2", os.Getpid())) {
		t.Errorf("the second open says %v", err)
	}
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := s.Commit(&progress.Changes{Sources: map[progress.SourceID]progress.Source{"x": {}}}); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

// Another program that has the database itself open is refused as well.
func TestHeldByAnotherProgram(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 1, 1)
	db, err := bolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, _, err := Open(dir, Options{Timeout: 100 * time.Millisecond}); !errors.Is(err, ErrHeld) {
		t.Errorf("opening says %v", err)
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	dir := filepath.Join(t.TempDir(), "a", "state")
	open(t, dir, Options{})
	for name, want := range map[string]os.FileMode{"": 0o700, fileName: 0o600, lockName: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := []string{file, filepath.Join(file, "below")}
	if os.Getuid() > 0 {
		readOnly := t.TempDir()
		if err := os.Chmod(readOnly, 0o500); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, readOnly)
	}
	for _, dir := range dirs {
		_, _, err := Open(dir, Options{})
		if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(fault.HintOf(err), "state_dir") {
			t.Errorf("opening %q says %v, hint %q", dir, err, fault.HintOf(err))
		}
	}
}

func TestClosed(t *testing.T) {
	s, _ := open(t, t.TempDir(), Options{})
	fill(t, s, 1, 1)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err1 := s.Lookup(benchLane(0), []string{"x"}, nil)
	err2 := s.Commit(&progress.Changes{Sources: map[progress.SourceID]progress.Source{"x": {}}})
	if !errors.Is(err1, ErrClosed) || !errors.Is(err2, ErrClosed) {
		t.Errorf("after closing: %v, %v", err1, err2)
	}
}

// What was committed is there after a restart, through packing and the lot.
func TestSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	want := filled(t, dir, 10, 200)
	s, r := open(t, dir, Options{})
	if r.Fresh || r.Rebuilt || s.Rebuilt() {
		t.Errorf("report %+v", r)
	}
	if err := intact(s, want); err != nil {
		t.Error(err)
	}
	if err := s.reopen(); err != nil { // as after a failed mapping
		t.Fatal(err)
	}
	if err := intact(s, want); err != nil {
		t.Errorf("after opening again in place: %v", err)
	}
	st, err := s.Stats()
	if err != nil || st.Lanes != 10 || st.Entries != 2000 || st.Parked != 10 || st.Partial != 10 || st.Packed == 0 || st.Size == 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	want := filled(t, dir, 2, 10)
	setSchema(t, dir, schema+1)
	_, _, err := Open(dir, Options{})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), fmt.Sprint(schema+1)) || fault.HintOf(err) == "" {
		t.Errorf("opening says %v", err)
	}
	setSchema(t, dir, schema)
	s, r := open(t, dir, Options{})
	if r.Fresh {
		t.Error("a refused file was set aside")
	}
	if err := intact(s, want); err != nil {
		t.Error(err)
	}
}

func setSchema(t *testing.T, dir string, version uint32) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keySchema, seal(keySchema, binary.BigEndian.AppendUint32(nil, version)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// The files of all versions, as this version must always be able to read them.
// -update makes that of today's version anew, which is right only before it is
// released.
func TestInvariant12_EarlierVersionsAreRead(t *testing.T) {
	for version := 1; version <= schema; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) { versionIsRead(t, version) })
	}
}

func versionIsRead(t *testing.T, version int) {
	const lanes, objects = 4, 60
	fixture := filepath.Join("testdata", fmt.Sprintf("v%d.db.gz", version))
	if *update && version == schema {
		dir := t.TempDir()
		s, _, err := Open(dir, Options{hashKey: []byte("sixteen bytes !!")})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s, lanes, objects)
		fillResyncs(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
		_, err = w.Write(b)
		if err := errors.Join(err, w.Close(), os.WriteFile(fixture, out.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(fixture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, r := open(t, dir, Options{})
	if from := version % schema; r.Fresh || r.Rebuilt || r.MigratedFrom != from {
		t.Fatalf("report %+v", r)
	}
	resyncs, err := s.Resyncs()
	switch {
	case err != nil:
		t.Error(err)
	case version == 1 && len(resyncs) > 0:
		t.Errorf("version 1 has re-syncs: %v", resyncs)
	case version > 1:
		wantFilledResyncs(t, s)
	}
	// What fill settles is the same every time.
	fresh, _ := open(t, t.TempDir(), Options{})
	if err := intact(s, fill(t, fresh, lanes, objects)); err != nil {
		t.Error(err)
	}
	st, err := s.Stats()
	if err != nil || st.Lanes != lanes+min(version-1, 1) || st.Entries != lanes*objects+min(version-1, 1) || st.Packed == 0 || st.Partial != lanes {
		t.Errorf("stats %+v, %v", st, err)
	}
	l := benchLane(2)
	states, err := s.Lookup(l, []string{
		benchPosition(&l, benchDay.AddDate(0, 0, 6), 2, lanes, 0), benchPosition(&l, benchDay.AddDate(0, 0, 6), 2, lanes, 0) + "x",
	}, nil)
	if err != nil || states[0].Standing != progress.Partial || states[0].Acked.String() != "0-4" || states[1].Standing != progress.Parked {
		t.Errorf("in flight and parked came back as %v, %v", states, err)
	}
}

// fillResyncs writes a re-sync, what it has settled, and a covered window.
func fillResyncs(t *testing.T, s *Store) {
	t.Helper()
	l := benchLane(0)
	mine := l
	mine.Resync = 1
	pos := benchPosition(&l, benchDay.AddDate(0, -3, 0), 1, 2, 0)
	if err := s.Commit(&progress.Changes{
		Settled: []progress.ObjectSettled{{Lane: mine, Position: pos}},
		Heads:   []progress.LaneHead{{Lane: mine, Head: progress.Head{Watermark: pos[:20], Pruned: pos[:20], Hourly: benchDay}}},
		Covered: []progress.LaneCovered{{Lane: l, Windows: filledCovered()}},
		Resyncs: []progress.Resync{filledResync()},
	}); err != nil {
		t.Fatal(err)
	}
}

func filledCovered() []progress.Covered {
	return []progress.Covered{{From: benchDay.AddDate(-1, 0, 0), To: benchDay.AddDate(0, -6, 0), AsOf: benchDay.Add(1234567)}}
}

func filledResync() progress.Resync {
	return progress.Resync{
		ID: 1, From: benchDay.AddDate(0, -4, 0), To: benchDay.AddDate(0, -3, 1),
		Sources: []progress.SourceID{benchLane(0).Source}, Outputs: []string{benchLane(0).Output}, LogTypes: []string{"CloudTrail"},
		Resend: true, State: progress.ResyncRunning, Created: benchDay, Began: benchDay.Add(time.Second),
		Count: progress.ResyncCount{Objects: 1, Passed: 2, Records: 3, Bytes: 4},
	}
}

func wantFilledResyncs(t *testing.T, s *Store) {
	t.Helper()
	if all, err := s.Resyncs(); err != nil || !reflect.DeepEqual(all, []progress.Resync{filledResync()}) {
		t.Errorf("re-syncs came back as %+v, %v", all, err)
	}
	l := benchLane(0)
	if w, err := s.Covered(l); err != nil || !reflect.DeepEqual(w, filledCovered()) {
		t.Errorf("covered windows came back as %v, %v", w, err)
	}
	pos := benchPosition(&l, benchDay.AddDate(0, -3, 0), 1, 2, 0)
	l.Resync = 1
	if states, err := s.Lookup(l, []string{pos}, nil); err != nil || states[0].Standing != progress.Settled {
		t.Errorf("what the re-sync settled stands %v, %v", states, err)
	}
	if heads, err := s.ResyncHeads(1); err != nil || heads[l].Watermark != pos[:20] || !heads[l].Hourly.Equal(benchDay) {
		t.Errorf("the re-sync's heads came back as %v, %v", heads, err)
	}
}

// Compaction keeps everything, gives the room back, and a crash at any step of
// it leaves a good store.
func TestInvariant12_Compaction(t *testing.T) {
	dir := t.TempDir()
	s, _, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := fill(t, s, 10, 300)
	extra := progress.Changes{}
	l := benchLane(99)
	l.Output = "removed"
	for i := range 30_000 {
		extra.Settled = append(extra.Settled, progress.ObjectSettled{Lane: l, Position: benchPosition(&l, benchDay, i, 30_000, 1)})
	}
	if err := s.Commit(&extra); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Forget(l.Source, l.Output); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context(), benchDay.AddDate(0, 0, 5)); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats()
	if err != nil || st.Free < st.Size/2 {
		t.Errorf("after forgetting an output the stats are %+v, %v", st, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	copies := map[string]string{}
	said := ""
	s, r := open(t, dir, Options{
		compactMin: 1 << 20,
		step:       func(step string) { copies[step] = copyDir(t, dir) },
		Notice:     func(m string) { said += m },
	})
	if r.Compacted <= 0 || !strings.Contains(said, "compacted") {
		t.Errorf("report %+v, said %q", r, said)
	}
	after, err := s.Stats()
	if err != nil || after.Size > st.Size/2 || after.Entries != 3000 {
		t.Errorf("compacted from %+v to %+v, %v", st, after, err)
	}
	if err := intact(s, want); err != nil {
		t.Error(err)
	}
	// Lane numbers go on where they were.
	if err := s.Commit(&progress.Changes{Settled: []progress.ObjectSettled{{Lane: l, Position: "x"}}}); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, s)
	if len(copies) != 3 {
		t.Errorf("there were these steps: %v", copies)
	}
	for step, dir := range copies {
		s, r := open(t, dir, Options{compactMin: 1 << 20})
		if r.Rebuilt {
			t.Errorf("after a crash when %q: %+v", step, r)
		}
		if err := intact(s, want); err != nil {
			t.Errorf("after a crash when %q: %v", step, err)
		}
		left, _ := filepath.Glob(filepath.Join(dir, "*.compact"))
		if len(left) > 0 {
			t.Errorf("after a crash when %q this is left: %v", step, left)
		}
	}
}

// bbolt's limit stands in for a full disk.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir, Options{maxSize: 4 << 20})
	diskFull(t, s, func() { s.db.MaxSize = 0 })
}

// A real full disk, where the test may mount one.
func TestDiskReallyFull(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("needs root on Linux to mount a small file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "none", dir).CombinedOutput(); err != nil {
		t.Skipf("can't mount: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v %s", err, out)
		}
	})
	s, _ := open(t, dir, Options{})
	diskFull(t, s, func() {
		if out, err := exec.Command("mount", "-o", "remount,size=64m", dir).CombinedOutput(); err != nil {
			t.Fatalf("remounting: %v %s", err, out)
		}
	})
}

// diskFull commits until the disk is full, and wants the store unharmed by it.
func diskFull(t *testing.T, s *Store, makeRoom func()) {
	t.Helper()
	want := map[progress.Lane][]string{}
	commit := func(n int) error {
		l := benchLane(n)
		c := progress.Changes{Heads: []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: "x"}}}}
		for i := range 3000 {
			c.Settled = append(c.Settled, progress.ObjectSettled{Lane: l, Position: benchPosition(&l, benchDay, i, 3000, 0)})
		}
		if err := s.Commit(&c); err != nil {
			return err
		}
		for _, o := range c.Settled {
			want[l] = append(want[l], o.Position)
		}
		return nil
	}
	n := 0
	var err error
	for ; err == nil && n < 1000; n++ {
		err = commit(n)
	}
	if err == nil || !strings.Contains(err.Error(), "no room on the disk") || !strings.Contains(fault.HintOf(err), "make room") {
		t.Fatalf("after %d commits: %v, hint %q", n, err, fault.HintOf(err))
	}
	if commit(n) == nil {
		t.Error("it goes on when the disk is full")
	}
	check := func() {
		t.Helper()
		for l, positions := range want {
			states, err := s.Lookup(l, positions, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, st := range states {
				if st.Standing != progress.Settled {
					t.Fatalf("%q stands %d", positions[i], st.Standing)
				}
			}
		}
		l := benchLane(n)
		if states, err := s.Lookup(l, []string{benchPosition(&l, benchDay, 0, 3000, 0)}, nil); err != nil || states[0].Standing != progress.Open && len(want[l]) == 0 {
			t.Errorf("what was refused stands %v, %v", states, err)
		}
	}
	check()
	makeRoom()
	for range 5 {
		if err := commit(n); err != nil {
			t.Fatalf("with room again: %v", err)
		}
		n++
	}
	check()
	wellFormed(t, s)
}

// A busy lane's day has many runs: what is in them is found, what is not is not.
func TestManyRuns(t *testing.T) {
	s, _ := open(t, t.TempDir(), Options{})
	l := benchLane(0)
	const n = 40_000
	in := make([]string, n)
	out := make([]string, n)
	for i := range n {
		in[i] = benchPosition(&l, benchDay, i, n, 1)
		out[i] = benchPosition(&l, benchDay, i, n, 2)
	}
	for from := 0; from < n; from += 10_000 { // the later ones are merged
		var c progress.Changes
		for i := from; i < from+10_000; i++ {
			c.Settled = append(c.Settled, progress.ObjectSettled{Lane: l, Position: in[i]})
		}
		c.Heads = []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: benchPosition(&l, benchDay.AddDate(0, 0, 3), 0, 1, 0)}}}
		if err := s.Commit(&c); err != nil {
			t.Fatal(err)
		}
		if err := s.Maintain(t.Context(), benchDay.AddDate(0, 0, 4)); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := s.Stats(); err != nil || st.Packed != n || st.Entries != n {
		t.Fatalf("stats %+v, %v", st, err)
	}
	for _, size := range []int{1, 7, 1000, n} {
		for _, from := range []int{0, n / 2, n - size} {
			if from+size > n {
				continue
			}
			for want, positions := range map[progress.Standing][]string{progress.Settled: in[from : from+size], progress.Open: out[from : from+size]} {
				states, err := s.Lookup(l, positions, nil)
				if err != nil {
					t.Fatal(err)
				}
				for i, st := range states {
					if st.Standing != want {
						t.Fatalf("%q stands %d, want %d", positions[i], st.Standing, want)
					}
				}
			}
		}
	}
	wellFormed(t, s)
}

// The two newest days stay as entries, and so does all from the watermark's
// day on; nothing is packed by a clock that stands at its beginning.
func TestWhatIsPacked(t *testing.T) {
	s, _ := open(t, t.TempDir(), Options{})
	lanes := [...]progress.Lane{benchLane(0), benchLane(1)}
	var c progress.Changes
	for _, l := range lanes {
		for day := range 10 {
			c.Settled = append(c.Settled, progress.ObjectSettled{Lane: l, Position: benchPosition(&l, benchDay.AddDate(0, 0, day), 1, 2, 0)})
		}
	}
	for i, day := range [...]int{9, 4} {
		c.Heads = append(c.Heads, progress.LaneHead{Lane: lanes[i], Head: progress.Head{
			Watermark: benchPosition(&lanes[i], benchDay.AddDate(0, 0, day), 1, 2, 0)}})
	}
	if err := s.Commit(&c); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		now  time.Time
		want int
	}{
		{time.Time{}, 0},
		{benchDay.Add(47 * time.Hour), 0},               // day 1: days 0 and 1 are the newest
		{benchDay.Add(48 * time.Hour), 2},               // day 2: day 0 of both
		{benchDay.AddDate(0, 0, 7), 6 + 4},              // days 0 to 5, and to the watermark's
		{benchDay.AddDate(0, 0, 30), 9 + 4},             // the watermarks' days stay
		{benchDay.AddDate(0, 0, 9).Add(-999999), 9 + 4}, // what is packed stays packed
	} {
		if err := s.Maintain(t.Context(), step.now); err != nil {
			t.Fatal(err)
		}
		if st, err := s.Stats(); err != nil || st.Packed != step.want || st.Entries != 20 {
			t.Errorf("at %v: %+v, %v; want %d packed", step.now, st, err, step.want)
		}
	}
}
