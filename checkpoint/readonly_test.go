package checkpoint

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/checkpoint/checkpointtest"
)

// files returns what is in dir, with its content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantSame(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	after := files(t, dir)
	for path, b := range before {
		if after[path] != b {
			t.Errorf("%s changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
}

func TestOpenReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReadOnly(dir, 0); !errors.Is(err, ErrNoState) {
		t.Errorf("without state: %v, want ErrNoState", err)
	}
	if _, err := OpenReadOnly(filepath.Join(dir, "missing"), 0); !errors.Is(err, ErrNoState) {
		t.Errorf("without a directory: %v, want ErrNoState", err)
	}
	if len(files(t, dir)) != 0 {
		t.Error("reading made a file")
	}
	s, _ := open(t, dir, Options{})
	l := checkpointtest.Lane(1, "siem")
	pos := checkpointtest.Position(l, time.Hour, 1)
	if err := s.Commit(&progress.Changes{Heads: []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: pos}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(dir, time.Millisecond); !errors.Is(err, ErrHeld) {
		t.Errorf("beside an agent: %v, want ErrHeld", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	before := files(t, dir)
	a, err := OpenReadOnly(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenReadOnly(dir, 0) // two may read
	if err != nil {
		t.Fatal(err)
	}
	heads, err := b.Heads(l.Source, "siem")
	if err != nil || heads[l.Stream].Watermark != pos {
		t.Errorf("heads %v, %v", heads, err)
	}
	if st, err := a.Stats(); err != nil || st.Lanes != 1 || st.Size == 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
	if err := b.Commit(&progress.Changes{Heads: []progress.LaneHead{{Lane: l, Head: progress.Head{Watermark: pos + "1"}}}}); err == nil {
		t.Error("what is open for reading was written to")
	}
	if _, _, err := Open(dir, Options{Timeout: time.Millisecond}); !errors.Is(err, ErrHeld) {
		t.Errorf("an agent beside a reader: %v, want ErrHeld", err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	wantSame(t, dir, before)
	s, _ = open(t, dir, Options{})
	_ = s.Close()
}

// A damaged file is said, and left as it is.
func TestOpenReadOnlyDamaged(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir, Options{})
	_ = s.Close()
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[16:], bytes.Repeat([]byte{0xff}, 3*os.Getpagesize()))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	_, err = OpenReadOnly(dir, 0)
	if _, ok := errors.AsType[*DamagedError](err); !ok {
		t.Errorf("got %v, want a DamagedError", err)
	}
	wantSame(t, dir, before)
}
