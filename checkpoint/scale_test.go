package checkpoint

import (
	"cmp"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// TestScale holds the state of a million objects a day for 30 days over 850
// streams and one output to its limits: at most 500 MiB of file, opened within
// a second, swept with at most 96 MiB of anonymous memory. 28 days are built
// in bulk, two are settled for real. It takes a minute or two.
func TestScale(t *testing.T) {
	if os.Getenv("TRAILPOLL_SCALE") == "" {
		t.Skip("set TRAILPOLL_SCALE=1 to run this with 30 million objects")
	}
	const days, perDay = 30, 1176 // a lane
	dir := t.TempDir()
	now := benchDay.AddDate(0, 0, days-1).Add(23 * time.Hour)
	s, _ := open(t, dir, Options{})
	lanes := make([]progress.Lane, benchStreams)
	var c progress.Changes
	for i := range lanes {
		lanes[i] = benchLane(i)
		c.Heads = append(c.Heads, progress.LaneHead{Lane: lanes[i], Head: progress.Head{
			Watermark: benchPosition(&lanes[i], benchDay.AddDate(0, 0, days-3), 0, perDay, 0)}})
	}
	if err := s.Commit(&c); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	for day := range days - 2 {
		if err := s.update("building", func(tx *bolt.Tx) error { return bulkDay(s, tx, lanes, day, perDay) }); err != nil {
			t.Fatal(err)
		}
	}
	built, err := s.Stats()
	t.Logf("built %d days in %v: %+v, %v", days-2, time.Since(began), built, err)

	// Two days for real, across the lanes as they come, the packing between.
	began = time.Now()
	settledN := 0
	for day := days - 2; day < days; day++ {
		c := progress.Changes{}
		for i := range perDay {
			for n := range lanes {
				pos := benchPosition(&lanes[n], benchDay.AddDate(0, 0, day), i, perDay, uint64(n))
				c.Settled = append(c.Settled, progress.ObjectSettled{Lane: lanes[n], Position: pos})
				c.Heads = append(c.Heads, progress.LaneHead{Lane: lanes[n], Head: progress.Head{Watermark: pos}})
				if settledN++; len(c.Settled) == 500 {
					for i := range c.Heads { // the last 16 characters come in no order
						h := &c.Heads[i].Head
						h.Watermark = h.Watermark[:len(h.Watermark)-len(suffix)-uniqueLen]
					}
					if err := s.Commit(&c); err != nil {
						t.Fatal(err)
					}
					c = progress.Changes{}
				}
			}
		}
		if err := s.Commit(&c); err != nil {
			t.Fatal(err)
		}
		if err := s.Maintain(t.Context(), benchDay.AddDate(0, 0, day)); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	t.Logf("settled %d objects in %v: %.0f/s", settledN, took, float64(settledN)/took.Seconds())
	began = time.Now()
	if err := s.Maintain(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	t.Logf("maintained in %v", time.Since(began))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	began = time.Now()
	s, _ = open(t, dir, Options{})
	took = time.Since(began)
	st, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("opened in %v; file %d MiB; %+v", took, info.Size()>>20, st)
	if took > time.Second {
		t.Errorf("opening took %v", took)
	}
	if info.Size() > 500<<20 {
		t.Errorf("the file has %d MiB", info.Size()>>20)
	}
	if want := days * perDay * benchStreams; st.Entries != want {
		t.Errorf("%d entries, want %d", st.Entries, want)
	}

	// The daily sweep: every lane's 30 days, a page at a time.
	runtime.GC()
	debug.FreeOSMemory()
	began = time.Now()
	var peak int64
	var states []progress.State
	page := make([]string, 0, 1000)
	for n := range lanes {
		for day := range days {
			page = page[:0]
			for i := range perDay {
				page = append(page, benchPosition(&lanes[n], benchDay.AddDate(0, 0, day), i, perDay, uint64(n)))
				if len(page) < 1000 && i < perDay-1 {
					continue
				}
				if states, err = s.Lookup(lanes[n], page, states); err != nil {
					t.Fatal(err)
				}
				for _, st := range states {
					if st.Standing != progress.Settled {
						t.Fatalf("lane %d day %d is not settled", n, day)
					}
				}
				page = page[:0]
			}
		}
		if n%50 == 0 {
			peak = max(peak, anonymous(t))
		}
	}
	took = time.Since(began)
	t.Logf("swept 30 days in %v: %.0f positions/s, at most %d MiB of anonymous memory",
		took, float64(st.Entries)/took.Seconds(), peak>>20)
	if peak > 96<<20 {
		t.Errorf("the sweep took %d MiB of anonymous memory", peak>>20)
	}
}

// bulkDay packs a day of all lanes without settling it first.
func bulkDay(s *Store, tx *bolt.Tx, lanes []progress.Lane, day, perDay int) error {
	w := newWriter(s, tx)
	b := tx.Bucket(bucketPacked)
	for n := range lanes {
		st, err := w.lane(&lanes[n])
		if err != nil {
			return err
		}
		var prints []uint64
		var d uint16
		for i := range perDay {
			key := w.positionKey(st, benchPosition(&lanes[n], benchDay.AddDate(0, 0, day), i, perDay, uint64(n)))
			d = binary.BigEndian.Uint16(key[4:])
			prints = append(prints, s.hash.sum(key[6:]))
		}
		slices.SortFunc(prints, cmp.Compare)
		added, err := mergeRuns(b, st.id, d, slices.Compact(prints))
		if err != nil {
			return err
		}
		st.row.packed += uint64(added)
		st.dirty = true
	}
	return w.finish()
}

// anonymous returns the process's anonymous memory in bytes.
func anonymous(t *testing.T) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("this system does not say how much memory is anonymous: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "RssAnon:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Skip("no RssAnon in /proc/self/status")
	return 0
}
