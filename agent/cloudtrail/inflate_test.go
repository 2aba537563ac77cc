package cloudtrail

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/gzip"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/record"
)

// proven is what became of an object: by Inflate, by Verify, and by a second
// reading.
type proven struct {
	data []byte
	err  error
}

// inflate reads an object in all ways and checks that they agree.
func inflate(t interface {
	Helper()
	Fatalf(string, ...any)
}, f *Inflater, body func() io.Reader, lim Limits,
) proven {
	t.Helper()
	data, err := f.Inflate(nil, body(), lim)
	if err != nil && len(data) > 0 {
		t.Fatalf("%d bytes beside error %v", len(data), err)
	}
	data = bytes.Clone(data)

	size, verr := f.Verify(body(), lim)
	if errors.Is(err, ErrHold) {
		if verr != nil || size <= int64(lim.Hold) {
			t.Fatalf("Inflate says %v, Verify %d, %v", err, size, verr)
		}
	} else if !sameError(err, verr) {
		t.Fatalf("Inflate says %v, Verify %v", err, verr)
	} else if err == nil && size != int64(len(data)) {
		t.Fatalf("Inflate gives %d bytes, Verify counts %d", len(data), size)
	}

	f.Reset(body(), lim)
	streamed, serr := io.ReadAll(f)
	if !sameReason(serr, verr) || err == nil && !bytes.Equal(streamed, data) {
		t.Fatalf("Verify says %v; streaming gives %d bytes and %v", verr, len(streamed), serr)
	}

	// Too large to hold is found by the same reading, and hides no fault.
	lim.Hold = min(100, len(data)-1)
	if _, herr := f.Inflate(nil, body(), lim); lim.Hold >= 0 && err == nil && !errors.Is(herr, ErrHold) || err != nil && !errors.Is(herr, ErrHold) && !sameError(herr, verr) {
		t.Fatalf("holding %d bytes of %d: %v, want %v", lim.Hold, len(data), herr, verr)
	}
	return proven{data, err}
}

func sameReason(a, b error) bool {
	x, ok1 := errors.AsType[*Error](a)
	y, ok2 := errors.AsType[*Error](b)
	if !ok1 || !ok2 {
		return a == b
	}
	return x.Reason == y.Reason && x.Offset == y.Offset
}

func sameError(a, b error) bool {
	x, ok1 := errors.AsType[*Error](a)
	y, ok2 := errors.AsType[*Error](b)
	return sameReason(a, b) && ok1 == ok2 && (!ok1 || x.Record == y.Record)
}

func reading(b []byte) func() io.Reader {
	return func() io.Reader { return bytes.NewReader(b) }
}

func limits(packed []byte) Limits {
	return Limits{MaxRecord: 1 << 20, Hold: 64 << 20, Stored: int64(len(packed))}
}

func TestInvariant7_NothingUnprovenIsInflated(t *testing.T) {
	data := sampleObject(100)
	good := deflate(data)
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	named := func() []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Name, w.Comment, w.Extra, w.ModTime = "x.json", "é", []byte{1, 2, 3}, time.Unix(1e9, 0)
		_, _ = w.Write(data)
		_ = w.Close()
		return b.Bytes()
	}()
	for _, c := range []struct {
		name   string
		packed []byte
		reason record.Reason // "" = good
		flaw   error
		record int
	}{
		{"good", good, "", nil, 0},
		{"header with name, time, comment and extra", named, "", nil, 0},
		{"no byte", nil, record.Truncated, nothing, 0},
		{"header cut in the magic", good[:2], record.Truncated, cutOff, 0},
		{"header cut", good[:9], record.Truncated, cutOff, 0},
		{"name cut", named[:22], record.Truncated, cutOff, 0},
		{"header only", good[:10], record.Truncated, cutOff, 0},
		{"cut", good[:len(good)/2], record.Truncated, cutOff, -2},
		{"trailer cut", good[:len(good)-1], record.Truncated, cutOff, 100},
		{"trailer missing", good[:len(good)-8], record.Truncated, cutOff, 100},
		{"CRC wrong", flip(good, len(good)-8), record.Corrupt, checksum, 100},
		{"length wrong", flip(good, len(good)-1), record.Corrupt, checksum, 100},
		{"second member", append(bytes.Clone(good), good...), record.TrailingData, behindMember, 100},
		{"empty second member", append(bytes.Clone(good), deflate(nil)...), record.TrailingData, behindMember, 100},
		{"zero byte behind", append(bytes.Clone(good), 0), record.TrailingData, behindMember, 100},
		{"zero padding", append(bytes.Clone(good), make([]byte, 1<<16)...), record.TrailingData, behindMember, 100},
		{"text behind", append(bytes.Clone(good), "x"...), record.TrailingData, behindMember, 100},
		{"plain JSON", data, record.Corrupt, plainJSON, 0},
		{"plain JSON, short", []byte("\n{}"), record.Corrupt, plainJSON, 0},
		{"plain array", []byte("[]"), record.Corrupt, plainJSON, 0},
		{"text", []byte("<html>"), record.Corrupt, notGzip, 0},
		{"one byte", []byte("x"), record.Corrupt, notGzip, 0},
		{"zip", []byte("PK\x03\x04aaaaaaaaaaaaaaaa"), record.Corrupt, notGzip, 0},
		{"not deflate", append([]byte{0x1f, 0x8b, 7}, good[3:]...), record.Corrupt, notGzip, 0},
		{"reserved flag", append([]byte{0x1f, 0x8b, 8, 0x80}, good[4:]...), record.Corrupt, damaged, 0},
		{"reserved block", append(bytes.Clone(good[:10]), 0xff, 0xff, 0xff, 0xff), record.Corrupt, damaged, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Inflater
			got := inflate(t, &f, reading(c.packed), limits(c.packed))
			if c.reason == "" {
				if got.err != nil || !bytes.Equal(got.data, data) {
					t.Fatalf("%d bytes, %v", len(got.data), got.err)
				}
				return
			}
			e, ok := errors.AsType[*Error](got.err)
			if !ok || e.Reason != c.reason || !errors.Is(e, c.flaw) || e.RecordOnly {
				t.Fatalf("%v, want %s: %v", got.err, c.reason, c.flaw)
			}
			if c.record == -2 { // somewhere inside
				if e.Record <= 0 || e.Record >= 100 || !strings.HasPrefix(e.Error(), "reading record ") {
					t.Fatalf("%v", e)
				}
			} else if e.Record != c.record {
				t.Fatalf("%v, want record %d", e, c.record)
			}
		})
	}
}

// Whatever bit flips, no changed byte is taken for proven.
func TestInvariant7_FlippedBit(t *testing.T) {
	data := sampleObject(3)
	good := deflate(data)
	var f Inflater
	unseen := 0
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		got := inflate(t, &f, reading(bad), limits(bad))
		if got.err == nil && !bytes.Equal(got.data, data) {
			t.Fatalf("byte %d: other data, no error", at)
		}
		if got.err == nil && at >= 10 {
			unseen++
		}
	}
	// Beside the header, only the bits that fill up deflate's last byte mean
	// nothing.
	if unseen > 1 {
		t.Fatalf("%d bytes changed unseen", unseen)
	}
	for cut := range good {
		if got := inflate(t, &f, reading(good[:cut]), limits(good)); !isReason(got.err, record.Truncated) {
			t.Fatalf("cut at %d: %v", cut, got.err)
		}
	}
}

func isReason(err error, r record.Reason) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Reason == r
}

func TestInvariant8_Bomb(t *testing.T) {
	zeros := func(n int) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.CopyN(w, filler(' '), int64(n))
		_, _ = io.WriteString(w, "[]")
		_ = w.Close()
		return b.Bytes()
	}
	packed := zeros(bombFloor - 2)
	var f Inflater
	lim := Limits{MaxRecord: 1 << 20, Hold: 1 << 20, Stored: int64(len(packed))}
	if _, err := f.Inflate(nil, bytes.NewReader(packed), lim); !errors.Is(err, ErrHold) {
		t.Errorf("16 MiB: %v", err)
	}
	packed = zeros(bombFloor - 1)
	lim.Stored = int64(len(packed))
	for _, hold := range []int{1 << 20, 64 << 20} {
		lim.Hold = hold
		_, err := f.Inflate(nil, bytes.NewReader(packed), lim)
		if !isReason(err, record.Bomb) {
			t.Errorf("16 MiB and a byte: %v", err)
		}
		if _, err := f.Verify(bytes.NewReader(packed), lim); !isReason(err, record.Bomb) {
			t.Errorf("16 MiB and a byte: %v", err)
		}
	}
	// What is stored large may be large.
	lim.Stored = bombFloor/bombFactor + 1
	if n, err := f.Verify(bytes.NewReader(packed), lim); err != nil || n != bombFloor+1 {
		t.Errorf("within 200 times: %d, %v", n, err)
	}
	// It is given up at once, not after all of it.
	packed = zeros(64 << 20)
	lim.Stored = int64(len(packed))
	r := bytes.NewReader(packed)
	if _, err := f.Verify(r, lim); !isReason(err, record.Bomb) || r.Len() < len(packed)/2 {
		t.Errorf("64 MiB: %v, %d of %d bytes left", err, r.Len(), len(packed))
	}
}

func TestInvariant8_InflateHoldsNoMore(t *testing.T) {
	data := sampleObject(50)
	packed := deflate(data)
	var f Inflater
	for _, hold := range []int{-1, 0, 1, 5000, len(data) - 1, len(data), len(data) + 1, 1 << 30} {
		for _, expect := range []int{0, 1, len(data), 1 << 40} {
			for _, have := range []int{0, 1, 10_000, len(data), 1 << 20} {
				lim := Limits{MaxRecord: 1 << 20, Hold: hold, Expect: expect, Stored: int64(len(packed))}
				if expect > hold && hold > len(data)+1 {
					lim.Expect = 0 // 1 GiB would be asked for, and got
				}
				got, err := f.Inflate(make([]byte, 0, have), bytes.NewReader(packed), lim)
				if cap(got) > max(hold, have, 0) {
					t.Fatalf("hold %d, have %d: %d bytes", hold, have, cap(got))
				}
				if hold >= len(data) {
					if err != nil || !bytes.Equal(got, data) {
						t.Fatalf("hold %d expect %d have %d: %v", hold, expect, have, err)
					}
				} else if !errors.Is(err, ErrHold) || len(got) != 0 {
					t.Fatalf("hold %d expect %d have %d: %v", hold, expect, have, err)
				}
			}
		}
	}
	// A good guess is neither enlarged nor copied.
	got, err := f.Inflate(nil, bytes.NewReader(packed), Limits{MaxRecord: 1 << 20, Hold: 1 << 20, Expect: len(data)})
	if err != nil || cap(got) != len(data) {
		t.Errorf("%d bytes for %d, %v", cap(got), len(data), err)
	}
	// Used again, it needs next to nothing.
	r := bytes.NewReader(nil)
	if n := testing.AllocsPerRun(10, func() {
		r.Reset(packed)
		got, err = f.Inflate(got, r, Limits{MaxRecord: 1 << 20, Hold: 1 << 20})
	}); n > 0 || err != nil {
		t.Errorf("%v allocations, %v", n, err)
	}
}

// What goes wrong with the reading is not blamed on the object.
func TestBodyErrorsPassThrough(t *testing.T) {
	data := sampleObject(100)
	good := deflate(data)
	for _, broken := range []error{io.ErrUnexpectedEOF, errors.New("stalled"), wrapped{io.EOF}} {
		for _, packed := range [][]byte{good, good[:len(good)-4], append(bytes.Clone(good), 'x')} {
			for _, cut := range []int{0, 1, 5, 10, 100, len(good) / 2, len(good) - 8, len(good) - 4} {
				var f Inflater
				got := inflate(t, &f, func() io.Reader {
					return io.MultiReader(bytes.NewReader(packed[:cut]), iotest.ErrReader(broken))
				}, limits(good))
				if got.err != broken {
					t.Errorf("cut at %d: %v, want %v", cut, got.err, broken)
				}
			}
		}
		// All the bytes are there, and then it breaks: the object may go on.
		var f Inflater
		if got := inflate(t, &f, func() io.Reader {
			return io.MultiReader(bytes.NewReader(good), iotest.ErrReader(broken))
		}, limits(good)); got.err != broken {
			t.Errorf("at the end: %v, want %v", got.err, broken)
		}
	}
	var f Inflater
	if _, err := f.Inflate(nil, idle{}, limits(good)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a body that gives nothing: %v", err)
	}
}

// wrapped is an error that says EOF and is not the end.
type wrapped struct{ error }

func (w wrapped) Unwrap() error { return w.error }

// An object that is too large to hold comes out of a second reading.
func TestSecondReading(t *testing.T) {
	data := sampleObject(1000)
	packed := deflate(data)
	lim := Limits{MaxRecord: 1 << 20, Hold: 100_000, Stored: int64(len(packed))}
	var f Inflater
	if _, err := f.Inflate(nil, bytes.NewReader(packed), lim); !errors.Is(err, ErrHold) {
		t.Fatal(err)
	}
	var s Splitter
	f.Reset(bytes.NewReader(packed), lim)
	s.ResetReader(&f, lim.MaxRecord)
	if got, want := text(walk(t, &s)), text(walkBytes(t, data, lim.MaxRecord)); got != want {
		t.Fatalf("%d bytes of text, want %d", len(got), len(want))
	}
	// Should it be damaged by then, that shows, at the record.
	f.Reset(bytes.NewReader(packed[:len(packed)/2]), lim)
	s.ResetReader(&f, lim.MaxRecord)
	steps := walk(t, &s)
	if last := steps[len(steps)-1]; last.reason != record.Truncated || last.index != len(steps)-1 || last.index < 100 {
		t.Fatalf("%+v", last)
	}
}

// A fault in the JSON is not for the inflater to find; one behind it is.
func TestVerifyMindsOnlyTheGzip(t *testing.T) {
	var f Inflater
	for _, c := range splits {
		packed := deflate([]byte(c.in))
		if got := inflate(t, &f, reading(packed), limits(packed)); got.err != nil || string(got.data) != c.in {
			t.Errorf("%s: %v", c.name, got.err)
		}
		bad := packed[:len(packed)-3]
		if got := inflate(t, &f, reading(bad), limits(bad)); !isReason(got.err, record.Truncated) {
			t.Errorf("%s, cut: %v", c.name, got.err)
		}
	}
}

// What follows broken JSON is still read, and proven or not.
func TestVerifyReadsToTheEnd(t *testing.T) {
	packed := deflate(append([]byte("no JSON"), sampleObject(500)...))
	var f Inflater
	for want, b := range map[record.Reason][]byte{
		record.Truncated:    packed[:len(packed)-1],
		record.TrailingData: append(bytes.Clone(packed), 0),
	} {
		if got := inflate(t, &f, reading(b), limits(b)); !isReason(got.err, want) {
			t.Errorf("%v, want %s", got.err, want)
		}
	}
}

func TestInflateProperty(t *testing.T) {
	var f Inflater
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "records")
		data := sampleObject(n)
		packed := deflate(data)
		at := rapid.IntRange(10, len(packed)-1).Draw(t, "at")
		bad := bytes.Clone(packed)
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		for i, b := range [][]byte{packed, bad, packed[:at], append(bytes.Clone(packed), packed[:at]...)} {
			got := inflate(t, &f, func() io.Reader { return iotest.HalfReader(bytes.NewReader(b)) }, limits(b))
			if got.err == nil && !bytes.Equal(got.data, data) || i != 1 && (got.err == nil) != (i == 0) {
				t.Fatalf("case %d, byte %d: %v", i, at, got.err)
			}
		}
	})
}

func FuzzInflate(f *testing.F) {
	good := deflate(sampleObject(2))
	f.Add(good)
	f.Add(good[:50])
	f.Add(append(bytes.Clone(good), good...))
	f.Add([]byte("{}"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packed []byte) {
		var in Inflater
		got := inflate(t, &in, reading(packed), limits(packed))
		if got.err != nil {
			if e, ok := errors.AsType[*Error](got.err); !ok || e.Record < 0 || e.Err == nil {
				t.Fatalf("%v", got.err)
			}
			return
		}
		// The library joins members; where it finds one only, it must agree.
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(want, got.data) {
			t.Fatalf("%d bytes, want %d, %v", len(got.data), len(want), err)
		}
	})
}
