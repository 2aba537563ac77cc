package checkpoint

import (
	"os"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/trailpoll/trailpoll/checkpoint/checkpointtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a store that the test closes.
func open(t testing.TB, dir string, o Options) (*Store, *Report) {
	t.Helper()
	s, r, err := Open(dir, o)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s, r
}

func TestConforms(t *testing.T) {
	checkpointtest.Run(t, func(t *testing.T) checkpointtest.Store {
		s, _ := open(t, t.TempDir(), Options{})
		t.Cleanup(func() { wellFormed(t, s) })
		return s
	})
}

// wellFormed checks the file as Open does, with the store open.
func wellFormed(t testing.TB, s *Store) {
	t.Helper()
	s.writer.Lock()
	defer s.writer.Unlock()
	f, err := os.Open(s.path())
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if err := checkFile(f, smallFile); err != nil {
		t.Errorf("the file is not well-formed: %v", err)
	}
	if err := s.tryRun(false, s.verifyAll); err != nil {
		t.Errorf("the file does not hold together: %v", err)
	}
}

// verifyAll is verify of every value, whatever the size of the file.
func (s *Store) verifyAll(tx *bolt.Tx) error {
	s.lanesMu.RLock()
	defer s.lanesMu.RUnlock()
	return verify(tx, s.lanes, true)
}
