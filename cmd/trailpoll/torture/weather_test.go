//go:build linux

package torture

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// phase is a time in which one thing goes wrong.
type phase struct {
	from, to time.Duration // since the round began
	kind     string
	chance   float64 // that it meets a request
}

func (p phase) String() string {
	return fmt.Sprintf("%s %.1fs-%.1fs p=%.2g", p.kind, p.from.Seconds(), p.to.Seconds(), p.chance)
}

// forecast draws phases for so long a time from the kinds.
func forecast(rng *rand.Rand, kinds []string, whole time.Duration) (all []phase) {
	for at := time.Duration(0); at < whole; {
		at += time.Duration(rng.Int64N(int64(1500 * time.Millisecond)))
		p := phase{
			from: at, kind: kinds[rng.IntN(len(kinds))],
			chance: []float64{0.1, 0.3, 0.7, 1}[rng.IntN(4)],
		}
		at += 500*time.Millisecond + time.Duration(rng.Int64N(int64(2500*time.Millisecond)))
		p.to = min(at, whole)
		if p.from < p.to {
			all = append(all, p)
		}
	}
	return all
}

// weather is what goes wrong with one server, and counts it.
type weather struct {
	seed   uint64
	began  time.Time
	phases []phase
	faults *counts
	name   string

	mu      sync.Mutex
	begun   bool
	cleared bool
	n       uint64
	stands  string // of a standing kind, while it was not met
}

// now is the kind of fault that meets a request, "" if none does, with the
// source of what else must be drawn for it.
func (w *weather) now() (kind string, rng *rand.Rand) {
	w.mu.Lock()
	w.n++
	rng = rand.New(rand.NewPCG(w.seed, w.n))
	fair := !w.begun || w.cleared
	w.mu.Unlock()
	if fair {
		return "", rng
	}
	since := time.Since(w.began)
	for _, p := range w.phases {
		if standing[p.kind] {
			continue
		}
		if p.from <= since && since < p.to && rng.Float64() < p.chance {
			return p.kind, rng
		}
	}
	return "", rng
}

// standing are the kinds that are no matter of single requests: for the whole
// phase the server is another, or not there.
var standing = map[string]bool{
	outDown: true, outStranger: true, outGarbage: true, outVanished: true,
	s3Ahead: true, s3Behind: true, s3DaysOn: true, s3DaysBack: true,
}

// switches calls change at the beginning of each phase of such a kind, and with
// "" at its end, until done is closed.
func (w *weather) switches(done <-chan struct{}, change func(kind string)) {
	for _, p := range w.phases {
		if !standing[p.kind] {
			continue
		}
		if !pass(done, time.Until(w.began.Add(p.from))) {
			return
		}
		w.stand(p.kind)
		change(p.kind)
		more := pass(done, time.Until(w.began.Add(p.to)))
		change("")
		w.stand("")
		if !more {
			return
		}
	}
}

func (w *weather) stand(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stands = kind
}

// notice counts the standing kind that somebody met, once.
func (w *weather) notice() {
	w.mu.Lock()
	kind := w.stands
	w.stands = ""
	w.mu.Unlock()
	if kind != "" {
		w.hit(kind)
	}
}

// pass waits, and reports false if done was closed before.
func pass(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-done:
		return false
	}
}

// hit counts a fault that came about.
func (w *weather) hit(kind string) { w.faults.add(w.name + ": " + kind) }

// begin begins the phases; before it nothing goes wrong.
func (w *weather) begin(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began, w.begun = at, true
}

// clear ends all that goes wrong.
func (w *weather) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cleared = true
}

// counts counts by name.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func newCounts() *counts { return &counts{of: map[string]int{}} }

func (c *counts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[name]++
}

func (c *counts) merge(other *counts) {
	for name, n := range other.of {
		c.of[name] += n
	}
}

// forecasts counts the phases that were drawn for the server of a name.
func (c *counts) forecasts(name string, all []phase) {
	for _, p := range all {
		c.add(name + ": " + p.kind)
	}
}

// all is how many there are by all names.
func (c *counts) all() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.of {
		n += m
	}
	return n
}

func (c *counts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(c.of)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", name, c.of[name])
	}
	return b.String()
}
