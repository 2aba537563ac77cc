package agent

import (
	"sync"
	"time"
)

// timers are calls to come, which can all be called off at once.
type timers struct {
	mu     sync.Mutex
	open   map[*time.Timer]bool
	closed bool
}

// after has f called in d, unless close comes first.
func (ts *timers) after(d time.Duration, f func()) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return
	}
	if ts.open == nil {
		ts.open = make(map[*time.Timer]bool)
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		ts.mu.Lock()
		delete(ts.open, t)
		closed := ts.closed
		ts.mu.Unlock()
		if !closed {
			f()
		}
	})
	ts.open[t] = true
}

// close calls off what has not begun.
func (ts *timers) close() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
	for t := range ts.open {
		t.Stop()
	}
	clear(ts.open)
}
