package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// filled makes a closed store in dir with something in every bucket, and
// returns which positions of which lanes are settled.
func filled(t testing.TB, dir string, lanes, objects int) map[progress.Lane][]string {
	t.Helper()
	s, _, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := fill(t, s, lanes, objects)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return want
}

func fill(t testing.TB, s *Store, lanes, objects int) map[progress.Lane][]string {
	t.Helper()
	want := map[progress.Lane][]string{}
	for n := range lanes {
		l := benchLane(n)
		c := progress.Changes{Sources: map[progress.SourceID]progress.Source{l.Source: {FirstSeen: benchDay}}}
		for i := range objects {
			pos := benchPosition(&l, benchDay.AddDate(0, 0, i%6), i, objects, uint64(n))
			c.Settled = append(c.Settled, progress.ObjectSettled{Lane: l, Position: pos})
			want[l] = append(want[l], pos)
		}
		open := benchPosition(&l, benchDay.AddDate(0, 0, 6), n, lanes, 0)
		c.Partial = []progress.ObjectPartial{{Lane: l, Position: open, Acked: progress.Ranges{{From: 0, To: 5}}}}
		c.Park = []progress.Entry{{Lane: l, Position: open + "x", Record: progress.WholeObject, Reason: record.Corrupt}}
		c.Heads = []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: open}}}
		if err := s.Commit(&c); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Maintain(t.Context(), benchDay.AddDate(0, 0, 5)); err != nil {
		t.Fatal(err)
	}
	return want
}

// errRepeat: something settled was forgotten, so that it is sent again. This is
// the harm that may come of damage to a large file before it is noticed.
var errRepeat = errors.New("a settled object stands open")

// intact reads everything that filled wrote, and reports whether all of it is
// there. What can't be read is an error, never something else than was written.
func intact(s *Store, want map[progress.Lane][]string) error {
	for l, positions := range want {
		states, err := s.Lookup(l, positions, nil)
		if err != nil {
			return err
		}
		for _, st := range states {
			if st.Standing != progress.Settled {
				return errRepeat
			}
		}
		other := slices.Clone(positions)
		for i := range other {
			other[i] = strings.Replace(other[i], suffix, "", 1)
		}
		if states, err = s.Lookup(l, other, states); err != nil {
			return err
		}
		for _, st := range states {
			if st.Standing != progress.Open {
				return errors.New("what was never settled is")
			}
		}
		heads, err := s.Heads(l.Source, l.Output)
		if err != nil {
			return err
		}
		if heads[l.Stream].Watermark == "" {
			return errors.New("a head is missing")
		}
		if _, found, err := s.Source(l.Source); err != nil || !found {
			return errors.Join(err, errors.New("the source is missing"))
		}
	}
	n := 0
	if err := s.Parked(func(e progress.Entry) bool { n++; return true }); err != nil {
		return err
	}
	if n != len(want) {
		return fmt.Errorf("%d parked entries of %d", n, len(want))
	}
	return nil
}

// wantRebuilt opens a damaged store and wants it set aside, said and made anew.
func wantRebuilt(t *testing.T, dir string) {
	t.Helper()
	said := ""
	s, r, err := Open(dir, Options{Notice: func(m string) { said += m }})
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	defer s.Close()
	if !r.Rebuilt || !r.Fresh || r.Damage == "" || !s.Rebuilt() || !strings.Contains(said, "set aside") {
		t.Errorf("report %+v, rebuilt %v, said %q", r, s.Rebuilt(), said)
	}
	if _, err := os.Stat(r.SetAside); err != nil || filepath.Dir(r.SetAside) != dir {
		t.Errorf("set aside as %q: %v", r.SetAside, err)
	}
	if _, err := os.Stat(filepath.Join(dir, markerName)); err == nil {
		t.Error("the marker stays")
	}
	if err := s.Commit(&progress.Changes{Settled: []progress.ObjectSettled{{Lane: benchLane(0), Position: "x"}}}); err != nil {
		t.Errorf("the new store takes nothing: %v", err)
	}
}

func TestInvariant12_DamagedFileIsSetAside(t *testing.T) {
	for name, harm := range map[string]func(b []byte) []byte{
		"empty":        func([]byte) []byte { return nil },
		"one byte":     func([]byte) []byte { return []byte{0} },
		"half":         func(b []byte) []byte { return b[:len(b)/2] },
		"one page":     func(b []byte) []byte { return b[:4096] },
		"two pages":    func(b []byte) []byte { return b[:8192] },
		"zeroed":       func(b []byte) []byte { clear(b); return b },
		"zeroed start": func(b []byte) []byte { clear(b[:8192]); return b },
		"zeroed middle": func(b []byte) []byte {
			clear(b[8192 : len(b)-4096])
			return b
		},
		"text": func([]byte) []byte { return bytes.Repeat([]byte("not a checkpoint\n"), 5000) },
		"random": func(b []byte) []byte {
			r := rand.NewChaCha8([32]byte{1})
			_, _ = io.ReadFull(r, b)
			return b
		},
		"random but the meta pages": func(b []byte) []byte {
			r := rand.NewChaCha8([32]byte{2})
			_, _ = io.ReadFull(r, b[8192:])
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			filled(t, dir, 20, 300)
			path := filepath.Join(dir, fileName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			harmed := harm(slices.Clone(b))
			if err := os.WriteFile(path, harmed, 0o600); err != nil {
				t.Fatal(err)
			}
			wantRebuilt(t, dir)
			s, r := open(t, dir, Options{})
			if r.Rebuilt || r.Fresh || !s.Rebuilt() {
				t.Errorf("the next start reports %+v, rebuilt %v", r, s.Rebuilt())
			}
			if err := s.ClearRebuilt(); err != nil || s.Rebuilt() {
				t.Errorf("clearing rebuilt: %v", err)
			}
		})
	}
}

// A flipped bit anywhere is noticed or does no harm: nothing panics, nothing
// comes back other than it was written. Of a large file, of which only the
// structure is read at the start, a settled object may be forgotten.
func TestInvariant12_FlippedBits(t *testing.T) {
	dir := t.TempDir()
	want := filled(t, dir, 20, 300)
	good, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for name, small := range map[string]int64{"small": 0, "large": 1} {
		atStart, later, repeats, harmless := 0, 0, 0, 0
		for i := range 100 {
			bad := slices.Clone(good)
			for range 1 + i%3*4 {
				bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, fileName), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, report, err := Open(dir, Options{smallFile: small})
			if err != nil {
				t.Fatalf("opening: %v", err)
			}
			if report.Rebuilt {
				atStart++
			} else {
				switch err := intact(s, want); {
				case err == nil:
					harmless++ // in a free page, or behind the end of one
				case errors.Is(err, errRepeat) && name == "large":
					repeats++
				default:
					if _, ok := errors.AsType[*DamagedError](err); !ok {
						t.Errorf("%s file %d: %v", name, i, err)
					}
					later++
				}
			}
			if err := s.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			_ = os.RemoveAll(dir)
		}
		t.Logf("%s: %d noticed at the start, %d later, %d repeat, %d do no harm", name, atStart, later, repeats, harmless)
		if atStart == 0 || harmless == 0 || name == "large" && later == 0 {
			t.Error("the test does not bite")
		}
	}
}

// What bbolt makes of a page that changes beneath it is caught, whatever it
// is, and puts the store out of use until the next start sets the file aside.
func TestInvariant12_DamageWhileOpen(t *testing.T) {
	for name, harm := range map[string]func(f *os.File, size int64) error{
		"truncated": func(f *os.File, size int64) error { return f.Truncate(8192) },
		"zeroed": func(f *os.File, size int64) error {
			_, err := f.WriteAt(make([]byte, size-8192), 8192)
			return err
		},
		"random": func(f *os.File, size int64) error {
			b := make([]byte, size-8192)
			_, _ = io.ReadFull(rand.NewChaCha8([32]byte{3}), b)
			_, err := f.WriteAt(b, 8192)
			return err
		},
		"page numbers": func(f *os.File, size int64) error { // every header its own, every child far away
			for at := int64(8192); at < size; at += 4096 {
				b := bytes.Repeat([]byte{0x7f}, 4096-pageHeader)
				if _, err := f.WriteAt(b, at+pageHeader); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		for _, first := range []string{"Lookup", "Commit", "Maintain", "Parked", "Stats"} {
			t.Run(name+"/"+first, func(t *testing.T) {
				dir := t.TempDir()
				want := filled(t, dir, 20, 300)
				s, _, err := Open(dir, Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				good, err := os.ReadFile(s.path())
				if err != nil {
					t.Fatal(err)
				}
				f, err := os.OpenFile(s.path(), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				info, _ := f.Stat()
				if err := errors.Join(harm(f, info.Size()), f.Close()); err != nil {
					t.Fatal(err)
				}
				l := benchLane(3)
				do := map[string]func() error{
					"Lookup": func() error { _, err := s.Lookup(l, want[l], nil); return err },
					"Commit": func() error {
						return s.Commit(&progress.Changes{Settled: []progress.ObjectSettled{{Lane: l, Position: "x"}}})
					},
					"Maintain": func() error { return s.Maintain(t.Context(), benchDay.AddDate(0, 0, 20)) },
					"Parked":   func() error { return s.Parked(func(progress.Entry) bool { return true }) },
					"Stats":    func() error { _, err := s.Stats(); return err },
				}
				if err := do[first](); err == nil {
					t.Fatal("it was not noticed")
				} else if _, ok := errors.AsType[*DamagedError](err); !ok || fault.HintOf(err) == "" {
					t.Fatalf("the error is %T %v with the hint %q", err, err, fault.HintOf(err))
				}
				for name, f := range do {
					if err := f(); err == nil {
						t.Errorf("%s works after damage", name)
					}
				}
				if err := s.Close(); err != nil {
					t.Errorf("closing: %v", err)
				}
				// Even if the disk gives the right bytes again.
				if err := os.WriteFile(s.path(), good, 0o600); err != nil {
					t.Fatal(err)
				}
				wantRebuilt(t, dir)
			})
		}
	}
}

// A panic that is our own fault is no damage: it must not cost the state.
func TestOwnPanicIsNotDamage(t *testing.T) {
	s, _ := open(t, t.TempDir(), Options{})
	fill(t, s, 1, 10)
	for name, f := range map[string]func(*bolt.Tx) error{
		"nil pointer": func(*bolt.Tx) error { var p *row; p.parked++; return nil },
		"said":        func(*bolt.Tx) error { panic("ours") },
		"index":       func(*bolt.Tx) error { var b []byte; b[len(name())]++; return nil },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the panic was swallowed", name)
				}
			}()
			_ = s.update("testing", f)
		}()
	}
	if err := s.Commit(&progress.Changes{Sources: map[progress.SourceID]progress.Source{"x": {}}}); err != nil {
		t.Errorf("the store is out of use: %v", err)
	}
}

func name() string { return "index" }

// A crash at any step of setting a file aside leads to a new store that knows
// it stands in for a lost one.
func TestInvariant12_CrashWhileSettingAside(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 3, 50)
	if err := os.Truncate(filepath.Join(dir, fileName), 10_000); err != nil {
		t.Fatal(err)
	}
	copies := map[string]string{}
	s, _ := open(t, dir, Options{step: func(step string) {
		copies[step] = copyDir(t, dir)
	}})
	if !s.Rebuilt() {
		t.Fatal("not rebuilt")
	}
	if len(copies) != 5 {
		t.Errorf("there were these steps: %v", copies)
	}
	for step, dir := range copies {
		s, _ := open(t, dir, Options{})
		if !s.Rebuilt() {
			t.Errorf("after a crash when %q the store does not know that it stands in for a lost one", step)
		}
		asides, _ := filepath.Glob(filepath.Join(dir, asideName+"*"))
		if len(asides) == 0 {
			t.Errorf("after a crash when %q nothing is set aside", step)
		}
	}
}

// copyDir copies the files of a state directory, but the lock.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// bbolt would write over a page that is in use and listed as free, and nobody
// would notice before.
func TestInvariant12_PageInUseAndFree(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 20, 300)
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := readMeta(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	list := b[int64(m.freelist)*int64(m.pageSize):]
	if binary.NativeEndian.Uint16(list[10:]) == 0 {
		t.Fatal("there are no free pages")
	}
	binary.NativeEndian.PutUint64(list[pageHeader:], m.root)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRebuilt(t, dir)
}
