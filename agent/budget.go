package agent

import (
	"context"
	"sync"
)

// budget bounds the bytes of records in flight. Shares are given in the order
// in which they are asked for. One holder at a time may grow its share beyond
// the bound, up to what a single object may hold: so there is always a reader
// that can go on, and a full budget never deadlocks.
type budget struct {
	mu      sync.Mutex
	free    int64
	size    int64
	waiting []*claim // in order of arrival
	growing chan struct{}
}

type claim struct {
	n     int64
	ready chan struct{}
}

func newBudget(size int64) *budget {
	return &budget{free: size, size: size, growing: make(chan struct{}, 1)}
}

// take waits until n bytes are free and takes them. A claim larger than the
// whole budget is given when everything else has come back.
func (b *budget) take(ctx context.Context, n int64) error {
	b.mu.Lock()
	if len(b.waiting) == 0 && b.fits(n) {
		b.free -= n
		b.mu.Unlock()
		return nil
	}
	c := &claim{n, make(chan struct{})}
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.waiting {
		if w == c {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			b.wake() // the next one may be smaller
			return ctx.Err()
		}
	}
	b.giveLocked(n) // it was given in the meantime
	return ctx.Err()
}

func (b *budget) fits(n int64) bool { return n <= b.free || b.free >= b.size }

// give returns n bytes.
func (b *budget) give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.giveLocked(n)
}

func (b *budget) giveLocked(n int64) {
	b.free += n
	b.wake()
}

func (b *budget) wake() {
	for len(b.waiting) > 0 && b.fits(b.waiting[0].n) {
		c := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.free -= c.n
		close(c.ready)
	}
}

// tryTake takes n bytes if they are free and nobody waits.
func (b *budget) tryTake(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 || n > b.free {
		return false
	}
	b.free -= n
	return true
}

// force takes n bytes that are in use anyway, beyond the bound if need be: what
// is asked for next waits the longer.
func (b *budget) force(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free -= n
}

// grow adds n bytes to a share that its holder can't give back first. If they
// are not free, it waits to be the one holder that may go beyond the bound;
// settle must be called when the share has its final size.
func (b *budget) grow(ctx context.Context, n int64) (settle func(), err error) {
	if b.tryTake(n) {
		return func() {}, nil
	}
	select {
	case b.growing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	b.free -= n
	b.mu.Unlock()
	return func() { <-b.growing }, nil
}

// used returns the bytes taken.
func (b *budget) used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size - b.free
}
