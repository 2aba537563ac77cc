package agent

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/record"
)

// chunk is memory that holds records on their way. It goes back when the last
// parcel of it has been let go.
type chunk struct {
	buf  []byte
	recs []record.Record
	// reserved is the share of the budget that goes back with it.
	reserved int64
	refs     atomic.Int32
	home     *memory
	// data, if not nil, is the chunk whose bytes the records are parts of, and
	// slot where one goes when this chunk goes back.
	data  *chunk
	slot  chan struct{}
	lent  int64     // what it counts for in home.lent
	since time.Time // when it was last used, if it is idle
}

func (c *chunk) hold() { c.refs.Add(1) }

// empty gives the chunk's buffer and its share of the budget back before the
// chunk itself.
func (c *chunk) empty() {
	buf := c.buf
	c.buf = nil
	c.home.keep(&chunk{home: c.home, buf: buf[:0], lent: c.lent})
	c.lent = 0
	c.home.budget.give(c.reserved)
	c.reserved = 0
}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.home.put(c)
	}
}

// cost is how many bytes it holds.
func (c *chunk) cost() int64 {
	return int64(cap(c.buf)) + int64(cap(c.recs))*recordSize
}

// recordSize is what a record.Record takes beside its bytes.
const recordSize = 88

// idleKept is for how long memory that nobody uses is kept.
const idleKept = 30 * time.Second

// spareShare is which part of the memory may be idle.
const spareShare = 4

// memory lends chunks out of one budget and keeps those that come back. What is
// idle and what is lent are within the budget together. Idle ones are not in a
// sync.Pool, which every collection would empty: near its limit the collector
// would run all the time, to collect what is made anew each time.
type memory struct {
	budget *budget
	hold   int // bytes of an object that is held inflated, at most

	mu    sync.Mutex
	lent  int64    // of the chunks in use
	idle  []*chunk // the one used last at the end
	spare int64    // what those cost
	trims bool     // trim is going to be called
}

func newMemory(size int64, maxRecord int) *memory {
	// An object held inflated takes up to an eighth of the memory, and at
	// least as much as one record may have.
	hold := max(min(size/8, 16<<20), int64(maxRecord)+64<<10)
	return &memory{budget: newBudget(size), hold: int(hold)}
}

// stepUp rounds a size up by at most an eighth, so that few sizes are in use
// and what was used for one object fits the next.
func stepUp(n int64) int64 {
	step := int64(1) << max(0, bits.Len64(uint64(n))-4)
	return (n + step - 1) / step * step
}

// get returns a chunk without records, whose share of the budget, reserved, is
// taken. Its buffer is empty and has room for so many bytes, or is nil.
func (m *memory) get(reserved int64, room int) *chunk {
	c := m.take(reserved, room)
	if more := int64(cap(c.buf) - room); more > 0 && c.buf != nil {
		m.budget.force(more)
		reserved += more
	}
	c.reserved = reserved
	c.refs.Store(1)
	return c
}

// take returns an idle chunk whose buffer has the room, or little more, or else
// a new one without a buffer.
func (m *memory) take(reserved int64, room int) *chunk {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.idle) - 1; i >= 0; i-- {
		if n := cap(m.idle[i].buf); n >= room && n <= room+room/4 {
			c := m.idle[i]
			m.idle = slices.Delete(m.idle, i, i+1)
			m.spare -= c.cost()
			c.lent = c.cost()
			m.lent += c.lent
			return c
		}
	}
	m.lent += reserved
	m.fit()
	return &chunk{home: m, lent: reserved}
}

// put takes a chunk back.
func (m *memory) put(c *chunk) {
	if c.data != nil {
		c.data.release()
		<-c.slot
		c.data, c.slot = nil, nil
	}
	clear(c.recs)
	c.recs = c.recs[:0]
	c.buf = c.buf[:0]
	reserved := c.reserved
	c.reserved = 0
	m.keep(c) // before whoever waits for the budget looks for it
	m.budget.give(reserved)
}

// keep keeps a chunk for the next.
func (m *memory) keep(c *chunk) {
	c.since = time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lent -= c.lent
	c.lent = 0
	cost := c.cost()
	if cost == 0 {
		return
	}
	m.idle = append(m.idle, c)
	m.spare += cost
	m.fit()
	if !m.trims {
		m.trims = true
		time.AfterFunc(idleKept, m.trim)
	}
}

// fit lets go of what has been idle the longest, until not much is idle, and
// that and what is lent fit into the budget. mu is held.
func (m *memory) fit() {
	over := max(m.spare-m.budget.size/spareShare, m.lent+m.spare-m.budget.size)
	n := 0
	for ; n < len(m.idle) && over > 0; n++ {
		over -= m.idle[n].cost()
		m.spare -= m.idle[n].cost()
	}
	m.idle = slices.Delete(m.idle, 0, n)
}

// trim lets go of what nobody has used for a while.
func (m *memory) trim() {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for ; n < len(m.idle) && time.Since(m.idle[n].since) >= idleKept; n++ {
		m.spare -= m.idle[n].cost()
	}
	m.idle = slices.Delete(m.idle, 0, n)
	if m.trims = len(m.idle) > 0; m.trims {
		time.AfterFunc(idleKept, m.trim)
	}
}
