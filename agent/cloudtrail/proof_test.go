package cloudtrail_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
)

// Whatever happens to an object between its two readings, the second hands out
// a true beginning of it or nothing.
func TestInvariant7_SecondReadingIsProven(t *testing.T) {
	for _, size := range []int{100_000, 3 * (32 << 10), 3*(32<<10) + 1, 32 << 10} {
		rng := rand.New(rand.NewPCG(uint64(size), 7))
		plain := make([]byte, size)
		for i := range plain {
			plain[i] = "0123456789abcdef\n"[rng.IntN(17)]
		}
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.NoCompression) // so that a flipped bit is a flipped bit
		_, _ = z.Write(plain)
		_ = z.Close()
		stored := b.Bytes()
		var f cloudtrail.Inflater
		lim := cloudtrail.Limits{MaxRecord: 1 << 20, Hold: 10_000, Stored: int64(len(stored))}
		first := func() {
			t.Helper()
			if _, err := f.Inflate(nil, bytes.NewReader(stored), lim); !errors.Is(err, cloudtrail.ErrHold) {
				t.Fatalf("size %d: first reading: %v", size, err)
			}
		}
		first()
		if got, err := io.ReadAll(f.Again(bytes.NewReader(stored), lim)); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("size %d: %d bytes, %v", size, len(got), err)
		}
		for range 300 {
			first()
			at := rng.IntN(len(stored))
			bad := bytes.Clone(stored)
			bad[at] ^= 1 << rng.IntN(8)
			if rng.IntN(10) == 0 {
				bad = stored[:at]
			}
			got, err := io.ReadAll(f.Again(bytes.NewReader(bad), lim))
			if !bytes.HasPrefix(plain, got) {
				t.Fatalf("size %d, byte %d: altered bytes were handed out", size, at)
			}
			// A header has bits that mean nothing.
			if err == nil && (len(got) != len(plain) || at > 10) {
				t.Fatalf("size %d, byte %d of %d: not noticed", size, at, len(stored))
			}
		}
	}
}
