package https

import (
	"bytes"
	"testing"

	"github.com/trailpoll/trailpoll/agent/record"
)

// plain is NDJSON without anything around it.
func plain() *form { return newForm(ndjson(false), nil, false, 1) }

// A batch that is a little larger than the last must not double the memory
// that a body holds: there is one for each connection, outside the ceiling for
// records.
func TestBodiesOfGrowingBatchesHoldLittleMoreThanABatch(t *testing.T) {
	bs := newBodies(1, false)
	for size := 1 << 20; size < 1<<20+40_000; size += 1000 {
		var b record.Batch
		b.Add(record.Record{Raw: bytes.Repeat([]byte{'x'}, size)})
		out, refused, err := bs.encode(plain(), &b)
		if err != nil || len(refused) > 0 {
			t.Fatal(err, refused)
		}
		if got := out.buf.Cap(); got > size+2*bodyStep {
			t.Fatalf("a body of %d bytes holds %d", size, got)
		}
		if got := out.buf.Len(); got != size+1 {
			t.Fatalf("a body of %d bytes, want %d", got, size+1)
		}
		out.release()
	}
}
