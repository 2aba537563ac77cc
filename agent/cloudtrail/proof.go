package cloudtrail

import (
	"errors"
	"hash/crc32"
	"io"
)

// ErrDiffers says that the second reading of an object brought other bytes than
// the first, which was proven: the way has altered them, and not the object.
var ErrDiffers = errors.New("inflating an object: its second reading differs from the first")

// blockSize is of how many inflated bytes a checksum is kept between the two
// readings: 4 bytes for each 32 KiB.
const blockSize = 32 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// proof is the checksums of an object's blocks, as its first reading had them.
// The gzip trailer proves an object at its end, when the records of a second
// reading have left; so each block of that is held to this before it is let go.
type proof struct {
	taking bool
	blocks []uint32
	sum    uint32 // of the block that is not full
	fill   int    // its bytes
}

func (p *proof) begin() {
	p.taking, p.blocks, p.sum, p.fill = true, p.blocks[:0], 0, 0
}

func (p *proof) take(b []byte) {
	for len(b) > 0 {
		n := min(len(b), blockSize-p.fill)
		p.sum = crc32.Update(p.sum, castagnoli, b[:n])
		if p.fill += n; p.fill == blockSize {
			p.blocks = append(p.blocks, p.sum)
			p.sum, p.fill = 0, 0
		}
		b = b[n:]
	}
}

// holds reports whether b is the i-th block, or the last and shorter one.
func (p *proof) holds(i int, b []byte) bool {
	sum := crc32.Checksum(b, castagnoli)
	switch {
	case i < len(p.blocks):
		return len(b) == blockSize && sum == p.blocks[i]
	case i == len(p.blocks):
		return len(b) == p.fill && sum == p.sum
	}
	return len(b) == 0
}

// Again prepares to inflate a second time the object for which Inflate last
// returned ErrHold, from its start. What the returned Reader returns is proven:
// it returns ErrDiffers before the first byte of a block that is not what it
// was. The Reader is good until the Inflater is used for something else.
func (f *Inflater) Again(r io.Reader, lim Limits) io.Reader {
	f.Reset(r, lim)
	return &second{f: f, block: make([]byte, 0, blockSize)}
}

// second reads an object's second reading, block by block.
type second struct {
	f     *Inflater
	block []byte // proven, from at on not handed out
	at    int
	next  int // number of the next block
	err   error
}

func (s *second) Read(p []byte) (int, error) {
	if s.at == len(s.block) && s.err == nil {
		s.fill()
	}
	if s.at == len(s.block) {
		return 0, s.err
	}
	n := copy(p, s.block[s.at:])
	s.at += n
	return n, nil
}

func (s *second) fill() {
	s.at = 0
	n := 0
	for n < blockSize && s.err == nil {
		var k int
		k, s.err = s.f.Read(s.block[n:blockSize])
		n += k
	}
	s.block = s.block[:n]
	switch {
	case s.err != nil && s.err != io.EOF: //nolint:errorlint // Inflater.Read keeps io.Reader's contract
		s.block = s.block[:0] // a part of a block proves nothing
	case !s.f.proof.holds(s.next, s.block):
		s.block, s.err = s.block[:0], ErrDiffers
	}
	s.next++
}
