package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// bbolt has no checksum over what it stores: a bit that flips on the disk
// comes back as it is. So each value ends with a CRC-32C over its key and
// itself, and is not believed without.

// castagnoli is CRC-32C, for which processors have an instruction. Never changed.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sealLen = 4

// checksum is the CRC-32C of key and value.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// seal appends to value its checksum under key.
func seal(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, checksum(key, value))
}

// unseal returns the value without its checksum.
func unseal(bucket string, key, sealed []byte) ([]byte, error) {
	n := len(sealed) - sealLen
	if n < 0 || len(key) > maxKey || binary.LittleEndian.Uint32(sealed[n:]) != checksum(key, sealed[:n]) {
		return nil, damagef("a value in %s does not have its checksum", bucket)
	}
	return sealed[:n], nil
}

// maxKey is a length no key of ours reaches; a longer one is not of our making.
const maxKey = 16 << 10

// mark is the checksum of a settled entry, which has no value but this: 16
// bits are enough to notice a damaged page, since each page has dozens.
func mark(key []byte) [2]byte {
	c := crc32.Checksum(key, castagnoli)
	return [2]byte{byte(c ^ c>>16), byte((c ^ c>>16) >> 8)}
}

func marked(key, value []byte) bool {
	return len(value) == 2 && len(key) <= maxKey && mark(key) == [2]byte(value)
}

// row is what the bucket heads holds of a lane: its head, and how much else is
// remembered of it, so that nobody must look for what is not there.
type row struct {
	head progress.Head

	parked  uint64 // parked entries, objects and records
	partial uint64 // objects with acknowledged ranges
	recent  uint64 // settled entries that are not packed
	packed  uint64 // fingerprints
}

func (r *row) append(dst []byte) []byte {
	dst = appendString(dst, r.head.Watermark)
	dst = appendString(dst, r.head.Pruned)
	dst = appendTime(dst, r.head.Hourly)
	dst = appendTime(dst, r.head.Daily)
	for _, n := range [...]uint64{r.parked, r.partial, r.recent, r.packed} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func parseRow(b []byte) (r row, err error) {
	d := decoder{b: b}
	r.head.Watermark = d.string()
	r.head.Pruned = d.string()
	r.head.Hourly = d.time()
	r.head.Daily = d.time()
	for _, n := range [...]*uint64{&r.parked, &r.partial, &r.recent, &r.packed} {
		*n = d.uvarint()
	}
	return r, d.end("a lane's head")
}

// appendLane appends the key of a lane in the bucket lanes.
func appendLane(dst []byte, l *progress.Lane) []byte {
	for _, s := range [...]string{
		string(l.Source), l.Stream.Organization, l.Stream.Account, l.Stream.LogType, l.Stream.Region, l.Output,
	} {
		dst = appendString(dst, s)
	}
	if l.Resync != 0 {
		dst = binary.AppendUvarint(dst, uint64(l.Resync))
	}
	return dst
}

func parseLane(b []byte) (l progress.Lane, err error) {
	d := decoder{b: b}
	l.Source = progress.SourceID(d.string())
	for _, s := range [...]*string{
		&l.Stream.Organization, &l.Stream.Account, &l.Stream.LogType, &l.Stream.Region, &l.Output,
	} {
		*s = d.string()
	}
	if len(d.b) > 0 {
		n := d.uvarint()
		if n == 0 || n > math.MaxUint32 {
			d.bad = true
		}
		l.Resync = progress.ResyncID(n)
	}
	return l, d.end("a lane")
}

// appendRanges writes each range as the gap before it and its length.
func appendRanges(dst []byte, r progress.Ranges) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(r)))
	at := 0
	for _, x := range r {
		dst = binary.AppendUvarint(dst, uint64(x.From-at))
		dst = binary.AppendUvarint(dst, uint64(x.To-x.From))
		at = x.To
	}
	return dst
}

func (d *decoder) ranges() progress.Ranges {
	n := d.uvarint()
	if n > uint64(len(d.b)) { // each range takes two bytes or more
		d.bad = true
		return nil
	}
	var r progress.Ranges
	at := uint64(0)
	for range n {
		from := at + d.uvarint()
		to := from + d.uvarint()
		if d.bad || to > math.MaxInt32 || to <= from {
			d.bad = true
			return nil
		}
		r = append(r, progress.Range{From: int(from), To: int(to)})
		at = to
	}
	return r
}

func appendParked(dst []byte, e *progress.Entry) []byte {
	dst = appendString(dst, string(e.Reason))
	dst = appendString(dst, e.Error)
	dst = binary.AppendVarint(dst, int64(e.At))
	dst = appendRanges(dst, e.Acked)
	dst = binary.AppendVarint(dst, int64(e.Attempts))
	dst = appendTime(dst, e.FirstSeen)
	dst = appendTime(dst, e.NextTry)
	dst = appendString(dst, e.ETag)
	if e.Skipped.IsZero() {
		return dst
	}
	return appendString(appendTime(dst, e.Skipped), e.Remark)
}

// parseParked fills all of e but lane, position and record.
func parseParked(b []byte, e *progress.Entry) error {
	d := decoder{b: b}
	e.Reason = record.Reason(d.string())
	e.Error = d.string()
	e.At = int(d.varint())
	e.Acked = d.ranges()
	e.Attempts = int(d.varint())
	e.FirstSeen = d.time()
	e.NextTry = d.time()
	e.ETag = d.trailing()
	if len(d.b) > 0 {
		e.Skipped = d.time()
		e.Remark = d.string()
	}
	return d.end("a parked entry")
}

// appendSource writes a source as JSON: it is rare, and grows over the years.
func appendSource(dst []byte, s *progress.Source) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("writing a source's state: %w", err)
	}
	return append(dst, b...), nil
}

func parseSource(b []byte) (s progress.Source, err error) {
	if err := json.Unmarshal(b, &s); err != nil {
		return s, damagef("a source's state can't be read: %v", err)
	}
	return s, nil
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendTime writes an instant to the nanosecond, the zero time included.
func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(dst, 0)
	}
	dst = append(dst, 1)
	dst = binary.AppendVarint(dst, t.Unix())
	return binary.AppendUvarint(dst, uint64(t.Nanosecond()))
}

// decoder reads what the append functions wrote. After the first thing that it
// can't read it returns zeros, and end an error.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// trailing reads a string that the first values of the kind do not have.
func (d *decoder) trailing() string {
	if len(d.b) == 0 {
		return ""
	}
	return d.string()
}

func (d *decoder) time() time.Time {
	if d.uvarint() == 0 {
		return time.Time{}
	}
	sec, nsec := d.varint(), d.uvarint()
	return time.Unix(sec, int64(nsec)).UTC()
}

func (d *decoder) end(what string) error {
	if d.bad || len(d.b) > 0 {
		return damagef("%s can't be read", what)
	}
	return nil
}
