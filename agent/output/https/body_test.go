package https

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/trailpoll/trailpoll/agent/output/outputtest"
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

// A body's memory is not used again while the transport may read it.
func TestBodyOutlivesRequest(t *testing.T) {
	bs := newBodies(1, false)
	b, _, err := bs.encode(plain(), batch(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	r1, r2 := b.reader(), b.reader()
	b.release()
	_ = r1.Close()
	_ = r1.Close()
	// Another body, which must get other memory.
	if _, _, err := bs.encode(plain(), batch(`{"b":2}`)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r2); err != nil || string(got) != "{\"a\":1}\n" {
		t.Fatalf("%q, %v", got, err)
	}
	if b.refs.Load() != 1 {
		t.Fatalf("%d references, want that of the open reader", b.refs.Load())
	}
	_ = r2.Close()
	if n, err := r2.Read(make([]byte, 8)); err == nil || b.refs.Load() != 0 {
		t.Fatalf("read %d bytes after Close, %d references", n, b.refs.Load())
	}
}

// BenchmarkBody makes bodies of a batch of records of the usual size, in each
// format, with and without gzip.
func BenchmarkBody(b *testing.B) {
	raw := []byte(`{"eventVersion":"1.08",` + strings.Repeat(`"userAgent":"aws-sdk-go-v2/1.30.3 os/linux",`, 30) + `"x":1}`)
	first := outputtest.Numbered("0d2f7bb1-cd2e-4b9c-9a8b-6f3c8a1f2e3d", 1)[0]
	var list []record.Record
	for i := range 700 {
		if i%20 == 0 { // records of an object
			o := *first.Object
			first.Object = &o
		}
		r := first
		r.Index, r.Raw = i, raw
		list = append(list, r)
	}
	batch := &record.Batch{Records: list, Bytes: 700 * len(raw)}
	for _, f := range []Format{NDJSON, JSONArray, SplunkHEC, ElasticBulk, OTLP} {
		for _, compression := range []string{"none", "gzip"} {
			b.Run(string(f)+"/"+compression, func(b *testing.B) {
				o, err := New(Config{URL: "http://h/i/_bulk", Format: f, Compression: compression})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(batch.Bytes))
				b.ReportAllocs()
				for b.Loop() {
					body, _, err := o.bodies.encode(o.form, batch)
					if err != nil {
						b.Fatal(err)
					}
					body.release()
				}
			})
		}
	}
}
