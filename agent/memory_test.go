package agent

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// What is lent and what is idle stay within the budget together, but for the
// quarter that a buffer may be larger than was asked for.
func TestInvariant8_MemoryIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 4 << 20
		m := newMemory(size, 1<<16)
		var out []*chunk
		held := func() (n int64) {
			for _, c := range out {
				n += int64(cap(c.buf))
			}
			for _, c := range m.idle {
				n += c.cost()
			}
			return n
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			want := stepUp(rapid.Int64Range(leastReserve, int64(m.hold)).Draw(t, "want"))
			switch {
			case rapid.Bool().Draw(t, "lend") && m.budget.tryTake(want):
				c := m.get(want, int(want))
				if c.buf == nil {
					c.buf = make([]byte, 0, want)
				}
				if cap(c.buf) < int(want) || len(c.buf) > 0 || len(c.recs) > 0 {
					t.Fatalf("%d bytes of room, %d of %d used, %d records", want, len(c.buf), cap(c.buf), len(c.recs))
				}
				out = append(out, c)
			case len(out) > 0:
				i := rapid.IntRange(0, len(out)-1).Draw(t, "back")
				out[i].release()
				out = append(out[:i], out[i+1:]...)
			}
			if n := held(); n > size+size/4 {
				t.Fatalf("%d bytes are held, of %d", n, size)
			}
			if m.spare > size/spareShare {
				t.Fatalf("%d bytes are idle", m.spare)
			}
		}
		for _, c := range out {
			c.release()
		}
		if m.budget.used() != 0 || m.lent != 0 {
			t.Fatalf("%d bytes are taken and %d lent when all is back", m.budget.used(), m.lent)
		}
	})
}

// Objects of about one size make no garbage, whatever the collector does.
func TestMemoryIsUsedAgain(t *testing.T) {
	m := newMemory(64<<20, 1<<20)
	for i := range 100 {
		want := stepUp(700_000 + int64(i)*100)
		if !m.budget.tryTake(want) {
			t.Fatal("the budget is taken")
		}
		c := m.get(want, int(want))
		if i > 0 && c.buf == nil {
			t.Fatalf("object %d gets a new buffer", i)
		}
		if c.buf == nil {
			c.buf = make([]byte, 0, want)
		}
		c.release()
		if i%10 == 0 {
			runtime.GC()
		}
	}
}

// What nobody needs any more is let go.
func TestIdleMemoryIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(64<<20, 1<<20)
		for range 3 {
			if !m.budget.tryTake(1 << 20) {
				t.Fatal("the budget is taken")
			}
			c := m.get(1<<20, 1<<20)
			if c.buf == nil {
				c.buf = make([]byte, 0, 1<<20)
			}
			time.Sleep(idleKept / 2)
			c.release()
		}
		idle := func() int64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.spare
		}
		if n := idle(); n != 1<<20 {
			t.Errorf("%d bytes are idle, want one buffer", n)
		}
		time.Sleep(3 * idleKept)
		if n := idle(); n != 0 {
			t.Errorf("%d bytes are idle after %v", n, 3*idleKept)
		}
	})
}

// What lending a buffer costs when sizes differ a little, as those of objects do.
func BenchmarkMemory(b *testing.B) {
	m := newMemory(64<<20, 1<<20)
	ctx := b.Context()
	n := int64(0)
	for b.Loop() {
		n++
		want := stepUp(20_000 + n%64*100)
		if err := m.budget.take(ctx, want); err != nil {
			b.Fatal(err)
		}
		c := m.get(want, int(want))
		if c.buf == nil {
			c.buf = make([]byte, 0, want)
		}
		c.release()
	}
}
