package receivertest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"sync"
)

// Tally compares what was written with what was received, by the bytes of the
// records. The same bytes written twice are expected twice. The zero value is
// ready for use; its methods may be called from any goroutine.
type Tally struct {
	mu       sync.Mutex
	counts   map[[16]byte]count // by the first half of the SHA-256
	written  int
	received int
}

type count struct {
	want, got int
	id        string
}

// Result is the outcome of a comparison, counted in records.
type Result struct {
	Written  int
	Received int
	Lost     int // written, and never received
	Repeated int // received more often than written
	Altered  int // received with bytes that nobody wrote
}

// Whole reports whether everything came once and unchanged.
func (r Result) Whole() bool {
	return r.Lost == 0 && r.Repeated == 0 && r.Altered == 0 && r.Written == r.Received
}

// String returns the result on one line.
func (r Result) String() string {
	return fmt.Sprintf("written %d, received %d, lost %d, repeated %d, altered %d", r.Written, r.Received, r.Lost, r.Repeated, r.Altered)
}

func sum(raw []byte) (h [16]byte) {
	s := sha256.Sum256(raw)
	return [16]byte(s[:16])
}

// Expect notes a record that was written. The id may be empty; it lets a
// record that arrives with other bytes count as altered instead of as one
// lost and one altered.
func (t *Tally) Expect(raw []byte, id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written++
	c := t.of(sum(raw))
	c.want++
	c.id = id
	t.counts[sum(raw)] = c
}

// Take notes a record that was received, and reports whether it was its first
// time: expected, and not taken as often as expected before.
func (t *Tally) Take(raw []byte) bool {
	h := sum(raw)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received++
	c := t.of(h)
	c.got++
	if c.want == 0 {
		c.id = guessID(raw)
	}
	t.counts[h] = c
	return c.got <= c.want
}

func (t *Tally) of(h [16]byte) count {
	if t.counts == nil {
		t.counts = map[[16]byte]count{}
	}
	return t.counts[h]
}

// guessID finds an event id without reading the JSON: good enough to name a
// record that was altered.
func guessID(raw []byte) string {
	_, id, _ := bytes.Cut(raw, []byte(`"eventID":"`))
	id, _, _ = bytes.Cut(id, []byte(`"`))
	return string(id)
}

// Received is how many records were taken so far.
func (t *Tally) Received() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.received
}

// Result compares what was written and received so far.
func (t *Tally) Result() Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Result{Written: t.written, Received: t.received}
	lost := map[string]int{}
	for _, c := range t.counts {
		if c.want > c.got {
			r.Lost += c.want - c.got
			lost[c.id] += c.want - c.got
		} else if c.want > 0 {
			r.Repeated += c.got - c.want
		}
	}
	for _, c := range t.counts {
		if c.want > 0 {
			continue
		}
		r.Altered += c.got
		if c.id != "" {
			known := min(lost[c.id], c.got)
			lost[c.id] -= known
			r.Lost -= known
		}
	}
	return r
}
