package outputtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// Inbox keeps what arrived at a receiver. The zero Inbox is empty; it is safe
// for concurrent use.
type Inbox struct {
	mu      sync.Mutex
	records [][]byte
	changed chan struct{} // closed and replaced at each Put; nil while nobody waits
}

// Put adds records, in this order and next to each other. It copies them.
func (b *Inbox) Put(records ...[]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range records {
		b.records = append(b.records, bytes.Clone(r))
	}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Records implements Receiver.
func (b *Inbox) Records() [][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.records)
}

// Await implements Receiver.
func (b *Inbox) Await(ctx context.Context, n int) error {
	for {
		b.mu.Lock()
		if len(b.records) >= n {
			b.mu.Unlock()
			return nil
		}
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d records: %w", n, ctx.Err())
		}
	}
}

// Golden compares got with the file testdata/golden/<name> of the repository,
// or writes the file when update is set.
func Golden(t *testing.T, name string, got []byte, update bool) {
	t.Helper()
	path := filepath.Join(root(t), "testdata", "golden", name)
	if update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the test with -update to write it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run the test with -update if it should):\ngot\n%q\nwant\n%q", path, got, want)
	}
}

// root returns the directory that go.mod stands in.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test's directory")
		}
		dir = up
	}
}
