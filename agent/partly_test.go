package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// An object that is partly delivered is written over while the agent is down:
// it starts again, and all of the new content is delivered.
func TestInvariant1_OverwrittenWhenPartlyDelivered(t *testing.T) {
	for _, parked := range []bool{false, true} {
		t.Run(fmt.Sprintf("parked=%v", parked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.disk = true
				key := w.key(stream(1), time.Now())
				if parked { // its end can't be read
					w.bucket.Put(key, zip(strings.TrimSuffix(unzip(t, w.object(key, 500)), "]}")+"x"))
				} else {
					w.bucket.Put(key, w.object(key, 500))
				}
				var sends atomic.Int64
				w.outputs["siem"].Fail = func(*record.Batch) agenttest.Failure {
					if sends.Add(1) > 2 && !parked {
						return failure(fault.Held)
					}
					return agenttest.Failure{}
				}
				w.during(func() { time.Sleep(time.Minute) })
				old := w.outputs["siem"].Taken()
				if len(old) == 0 || parked != (len(w.parked()) == 1) {
					t.Fatalf("%d records taken, parked: %v", len(old), w.parked())
				}
				// The new content has other records under the same numbers.
				other := strings.Replace(key, key[len(key)-24:len(key)-8], "ffffffffffffffff", 1)
				body := w.object(other, 500)
				for n := range 500 {
					name := fmt.Sprintf("%s/%s#%d", bucketName, other, n)
					delete(w.want, name)
				}
				w.bucket.Put(key, body)
				w.outputs["siem"].Fail = nil
				w.once()
				taken := w.outputs["siem"].Taken()
				missing := 0
				for n := range old {
					if taken[n] < 2 {
						missing++
					}
				}
				if missing > 0 {
					t.Errorf("%d records of the new content were not sent", missing)
				}
				if p := w.parked(); len(p) > 0 {
					t.Errorf("still parked: %+v", p)
				}
			})
		})
	}
}

// One record of an object is parked while the rest of it is still on its way:
// trying the record again must not hide what is left of the object.
func TestInvariant4_ParkedRecordOfAnObjectInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		key := w.put(stream(1), time.Now(), 500)
		bad, heal := w.partlyTaken(key)
		heal()
		// The record is being tried again when the object is listed.
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			switch {
			case op == "get":
				time.Sleep(20 * time.Second)
			case strings.HasSuffix(what, stream(1).Region+"/"):
				time.Sleep(5 * time.Second)
			}
			return agenttest.Failure{}
		}
		w.once()
		delete(w.want, bad)
		w.complete("siem", 0)
	})
}

// The same, while it is only found out that the record is to be tried again.
func TestInvariant4_ParkedRecordOfAnObjectInFlightIsClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		key := w.put(stream(1), time.Now(), 500)
		bad, heal := w.partlyTaken(key)
		heal()
		// The entries are read twice, from 0 to 10 s and from 10 to 20 s.
		w.wrap = func(s store) agent.Checkpoint { return slowScan{s, 10 * time.Second} }
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			if op == "list" && strings.HasSuffix(what, stream(1).Region+"/") {
				time.Sleep(15 * time.Second)
			}
			return agenttest.Failure{}
		}
		w.once()
		delete(w.want, bad)
		w.complete("siem", 0)
	})
}

// The same where it is a re-sync that lists the object.
func TestInvariant1_ParkedRecordOfAnObjectInFlightOfAResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 1)
		w.once()
		at := time.Now().Add(-60 * day)
		key := w.key(stream(1), at)
		w.bucket.PutAt(key, w.object(key, 500), at.Add(time.Minute))
		w.resync(agent.ResyncOrder{From: at.Add(-day), To: at.Add(day)})
		bad, heal := w.partlyTaken(key)
		heal()
		// The record is being tried again when the object is listed.
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			switch {
			case op == "get":
				time.Sleep(20 * time.Second)
			case strings.Contains(what, stream(1).Region+"/"):
				time.Sleep(5 * time.Second)
			}
			return agenttest.Failure{}
		}
		w.once()
		delete(w.want, bad)
		w.complete("siem", 0)
	})
}

// partlyTaken makes an object in flight: some of its records were taken, one is
// parked by itself, and then the output was held. It returns the record's name,
// and what makes the output well.
func (w *world) partlyTaken(key string) (bad string, heal func()) {
	w.t.Helper()
	bad = fmt.Sprintf("%s/%s#%d", bucketName, key, 7)
	var healed atomic.Bool
	refuse := refusing(named(&bad))
	w.outputs["siem"].Fail = func(b *record.Batch) agenttest.Failure {
		if !healed.Load() && b.Records[0].Index >= 100 {
			time.Sleep(5 * time.Second) // by then the bad one has been found and parked
			return failure(fault.Held)
		}
		return refuse(b)
	}
	had := len(w.outputs["siem"].Taken())
	w.during(func() { time.Sleep(time.Minute) })
	if p := w.parked(); len(p) != 1 || p[0].Record != 7 {
		w.t.Fatalf("parked: %+v", p)
	}
	if n := len(w.outputs["siem"].Taken()) - had; n >= 499 || n == 0 {
		w.t.Fatalf("%d records were taken: the object is not in flight", n)
	}
	return bad, func() { healed.Store(true) }
}

// slowScan takes its time to say what is parked.
type slowScan struct {
	store
	takes time.Duration
}

func (b slowScan) Parked(yield func(progress.Entry) bool) error {
	time.Sleep(b.takes)
	return b.store.Parked(yield)
}

// keeper keeps what it says.
type keeper func(*record.Record) bool

func (k keeper) Keep(r *record.Record) bool { return k(r) }

// What a filter leaves out is settled: it holds nothing up and is never sent,
// and all the rest is.
func TestFilteredRecordsAreSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) {
			c.Sources[0].Filter = keeper(func(r *record.Record) bool { return r.Index%3 == 1 })
			c.Memory = 4 << 20 // so that the large object is read in chunks
		}
		keys := map[string]int{}
		for i := range 20 {
			keys[w.put(stream(1), time.Now().Add(-time.Duration(i)*time.Minute), i)] = i
		}
		keys[w.put(stream(2), time.Now(), 30000)] = 30000
		keys[w.put(stream(2), time.Now(), 1)] = 1 // all of it is left out
		w.finish()
		for key, n := range keys {
			for i := range n {
				if i%3 != 1 {
					delete(w.want, fmt.Sprintf("%s/%s#%d", bucketName, key, i))
				}
			}
		}
		w.complete("siem", 0)
		before := len(w.outputs["siem"].Taken())
		w.once()
		if n := len(w.outputs["siem"].Taken()); n != before {
			t.Errorf("a second run sent %d records", n-before)
		}
	})
}

// One record of an object was refused, and later the rest of the object could
// not be read. When both are tried again together the record is sent, too: the
// object's entry has it as settled only because it had an entry of its own.
func TestInvariant1_RecordAndRestOfItsObjectParked(t *testing.T) {
	for _, failures := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d failed attempts", failures), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				key := w.put(stream(1), time.Now(), 500)
				_, heal := w.partlyTaken(key)
				w.bucket.Fail = failing(fault.Archived, "get", "")
				heal()
				w.during(func() { time.Sleep(time.Minute) })
				if p := w.parked(); len(p) != 2 || p[0].Record+p[1].Record != progress.WholeObject+7 {
					t.Fatalf("parked: %+v", p)
				}
				for range failures {
					w.once()
				}
				w.bucket.Fail, w.outputs["siem"].Fail = nil, nil
				w.once()
				if p := w.parked(); len(p) != 0 {
					t.Errorf("still parked: %+v", p)
				}
				w.complete("siem", 0)
			})
		})
	}
}

// The way alters an object that is too large to hold, but only the second time
// that it is read: none of what was altered leaves.
func TestInvariant7_AlteredWhenReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := &bent{Bucket: w.bucket, seen: make(map[string]int)}
		w.tune = func(c *agent.Config) {
			c.Memory = 4 << 20
			c.Sources[0].Store = b
		}
		key := w.key(stream(1), time.Now())
		plain := unzip(t, w.object(key, 30000))
		w.bucket.Put(key, stored(plain))
		w.finish()
		if b.bends == 0 {
			t.Fatal("the object was not read twice")
		}
		w.complete("siem", 0)
		if p := w.parked(); len(p) > 0 {
			t.Errorf("parked: %+v", p)
		}
	})
}

// stored packs without compressing, so that a bit that flips on the way is one
// that flips in a record.
func stored(s string) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.NoCompression)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.Bytes()
}

// bent is a bucket whose every second GET of an object flips a bit in the
// middle of it, up to five times.
type bent struct {
	*agenttest.Bucket
	mu    sync.Mutex
	seen  map[string]int
	bends int
}

func (b *bent) Get(ctx context.Context, key, ifMatch string) (listing.Body, error) {
	body, err := b.Bucket.Get(ctx, key, ifMatch)
	if err != nil {
		return body, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[key]++; b.seen[key]%2 == 1 || b.bends == 5 {
		return body, nil
	}
	b.bends++
	all, err := io.ReadAll(body)
	if err != nil {
		return body, err
	}
	_ = body.Close()
	i := bytes.Index(all[len(all)/2:], []byte("eventID")) + len(all)/2 + 12
	all[i] ^= 1
	body.ReadCloser = io.NopCloser(bytes.NewReader(all))
	return body, nil
}

// An object of which one record is parked is written over: its new content is
// delivered, all of it, when the record is tried again.
func TestInvariant1_OverwrittenWhenOneRecordIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.disk = true
		key := w.put(stream(1), time.Now(), 95)
		bad := fmt.Sprintf("%s/%s#%d", bucketName, key, 50)
		w.outputs["siem"].Fail = refusing(named(&bad))
		w.once()
		if p := w.parked(); len(p) != 1 || p[0].Record != 50 {
			t.Fatalf("parked: %+v", p)
		}
		w.outputs["siem"].Fail = nil
		w.bucket.Put(key, w.object(key, 120))
		w.once()
		if p := w.parked(); len(p) > 0 {
			t.Errorf("still parked: %+v", p)
		}
		w.complete("siem", 94)
	})
}
