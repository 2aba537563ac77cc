package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// A file is checked before bbolt opens it, because bbolt trusts it: a page
// number out of range reads somewhere in memory, a page that is in use and on
// the list of free ones is overwritten later. The format is that of bbolt
// 1.3 to 1.5 (internal/common: page.go, meta.go, inode.go, bucket.go), in the
// byte order of the machine.
//
// A small file is read whole. Of a large one only the inner pages are, some
// hundred of them: this finds a file that was cut, zeroed or overwritten in
// its structure, and costs milliseconds. The rest is checked as it is read,
// by checksums and marks; the daily sweep reads all of it.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeader     = 16 // id uint64, flags, count uint16, overflow uint32
	elementSize    = 16 // branch: pos, ksize uint32, child uint64; leaf: flags, pos, ksize, vsize uint32
	bucketHeader   = 16 // root, sequence uint64; root 0 = the one page follows
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagMeta       = 0x04
	flagFreelist   = 0x10
	flagIsBucket   = 0x01
	noFreelist     = ^uint64(0)
	smallFile      = 64 << 20
	maxDepth       = 32
	maxPageSizeLog = 14 // the second meta page stands at 1024<<n, n to 14
)

type fileCheck struct {
	f        io.ReaderAt
	pageSize int64
	pages    uint64 // all page numbers in use are below it
	whole    bool
	free     []uint64 // a bit a page
	used     []uint64
}

// boltMeta is one of the two meta pages.
type boltMeta struct {
	pageSize                    uint32
	root, freelist, pages, txid uint64
}

// checkFile returns a damage if the file is not what bbolt wrote. It is read
// whole if it has at most small bytes.
func checkFile(f *os.File, small int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := readMeta(f, info.Size())
	if err != nil {
		return err
	}
	c := fileCheck{f: f, pageSize: int64(m.pageSize), pages: m.pages, whole: info.Size() <= small}
	if m.pages < 4 || m.pages > uint64(info.Size()/c.pageSize) {
		return damagef("it ends at byte %d, before page %d of %d bytes", info.Size(), m.pages, c.pageSize)
	}
	c.free = make([]uint64, m.pages/64+1)
	c.used = make([]uint64, m.pages/64+1)
	if m.freelist != noFreelist {
		if err := c.freelist(m.freelist); err != nil {
			return err
		}
	}
	return c.tree(m.root, nil, nil, true, 0)
}

// readMeta returns the newer of the meta pages that are whole. The older one
// is a whole state, too: that before the last commit.
func readMeta(f io.ReaderAt, size int64) (boltMeta, error) {
	var found []boltMeta
	try := func(at int64) {
		var b [pageHeader + 64]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			return
		}
		p := b[pageHeader:]
		sum := fnv.New64a()
		sum.Write(p[:56])
		m := boltMeta{
			pageSize: binary.NativeEndian.Uint32(p[8:]),
			root:     binary.NativeEndian.Uint64(p[16:]),
			freelist: binary.NativeEndian.Uint64(p[32:]),
			pages:    binary.NativeEndian.Uint64(p[40:]),
			txid:     binary.NativeEndian.Uint64(p[48:]),
		}
		if binary.NativeEndian.Uint32(p) == boltMagic && binary.NativeEndian.Uint32(p[4:]) == boltVersion &&
			binary.NativeEndian.Uint64(p[56:]) == sum.Sum64() &&
			m.pageSize >= 1024 && m.pageSize <= 1024<<maxPageSizeLog && m.pageSize&(m.pageSize-1) == 0 {
			found = append(found, m)
		}
	}
	try(0)
	if len(found) > 0 {
		try(int64(found[0].pageSize))
	} else {
		for i := 0; i <= maxPageSizeLog && len(found) == 0; i++ {
			try(1024 << i)
		}
	}
	switch {
	case len(found) == 0 && size == 0:
		return boltMeta{}, damagef("it is empty")
	case len(found) == 0:
		return boltMeta{}, damagef("it does not begin as a checkpoint does")
	case len(found) == 2 && found[1].txid > found[0].txid:
		return found[1], nil
	}
	return found[0], nil
}

// page reads a page that must be of one of these kinds.
func (c *fileCheck) page(id uint64, kinds uint16) (kind uint16, count int, body []byte, err error) {
	if id < 2 || id >= c.pages {
		return 0, 0, nil, damagef("a page number %d out of range", id)
	}
	head := make([]byte, pageHeader)
	if _, err := c.f.ReadAt(head, int64(id)*c.pageSize); err != nil {
		return 0, 0, nil, readError(err)
	}
	kind = binary.NativeEndian.Uint16(head[8:])
	count = int(binary.NativeEndian.Uint16(head[10:]))
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != id || kind&kinds == 0 || kind&(kind-1) != 0 || overflow >= c.pages-id {
		return 0, 0, nil, damagef("page %d is none", id)
	}
	for i := id; i <= id+overflow; i++ {
		if err := c.claim(i); err != nil {
			return 0, 0, nil, err
		}
	}
	body = make([]byte, (int64(overflow)+1)*c.pageSize-pageHeader)
	if _, err := c.f.ReadAt(body, int64(id)*c.pageSize+pageHeader); err != nil {
		return 0, 0, nil, readError(err)
	}
	return kind, count, body, nil
}

// readError is damage where the file ends or the disk can't read it.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damagef("it ends too early")
	}
	return damagef("it can't be read: %v", err)
}

// claim notes that a page is in use; each is once, and not free.
func (c *fileCheck) claim(id uint64) error {
	switch {
	case id < 2 || id >= c.pages:
		return damagef("a page number %d out of range", id)
	case c.free[id/64]&(1<<(id%64)) != 0:
		return damagef("page %d is in use and free", id)
	case c.used[id/64]&(1<<(id%64)) != 0:
		return damagef("page %d is in use twice", id)
	}
	c.used[id/64] |= 1 << (id % 64)
	return nil
}

func (c *fileCheck) freelist(id uint64) error {
	_, count, body, err := c.page(id, flagFreelist)
	if err != nil {
		return err
	}
	n := uint64(count)
	if n == 0xFFFF { // too many for a uint16: the first entry says how many
		n, body = binary.NativeEndian.Uint64(body), body[8:]
	}
	if n > uint64(len(body)/8) {
		return damagef("the list of free pages is too long")
	}
	for i := range n {
		p := binary.NativeEndian.Uint64(body[8*i:])
		if p < 2 || p >= c.pages || c.used[p/64]&(1<<(p%64)) != 0 || c.free[p/64]&(1<<(p%64)) != 0 {
			return damagef("the list of free pages names page %d wrongly", p)
		}
		c.free[p/64] |= 1 << (p % 64)
	}
	return nil
}

// tree checks the pages below id. Keys must lie in [least, end); nil = no
// bound. isRoot: its leaves hold buckets.
func (c *fileCheck) tree(id uint64, least, end []byte, isRoot bool, depth int) error {
	kind, count, body, err := c.page(id, flagBranch|flagLeaf)
	if err != nil {
		return err
	}
	if depth > maxDepth {
		return damagef("the tree is too deep")
	}
	if kind == flagLeaf {
		return c.leaf(body, count, least, end, isRoot, depth)
	}
	keys := make([][]byte, count)
	children := make([]uint64, count)
	for i := range count {
		e, ok := element(body, i)
		if !ok {
			return damagef("page %d breaks off", id)
		}
		pos, size := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:])
		if keys[i], ok = slice(e, uint64(pos), uint64(size)); !ok {
			return damagef("page %d has a key outside", id)
		}
		children[i] = binary.NativeEndian.Uint64(e[8:])
	}
	if count == 0 {
		return damagef("page %d is empty", id)
	}
	if err := ascending(keys, least, end); err != nil {
		return err
	}
	// All leaves are equally deep, so one child tells what all are.
	skip, err := c.isLeaf(children[0])
	if err != nil {
		return err
	}
	for i, child := range children {
		if skip && !c.whole && !isRoot {
			err = c.claim(child)
		} else {
			next := end
			if i+1 < count {
				next = keys[i+1]
			}
			err = c.tree(child, keys[i], next, isRoot, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *fileCheck) isLeaf(id uint64) (bool, error) {
	var head [pageHeader]byte
	if id < 2 || id >= c.pages {
		return false, damagef("a page number %d out of range", id)
	}
	if _, err := c.f.ReadAt(head[:], int64(id)*c.pageSize); err != nil {
		return false, readError(err)
	}
	return binary.NativeEndian.Uint16(head[8:]) == flagLeaf, nil
}

func (c *fileCheck) leaf(body []byte, count int, least, end []byte, isRoot bool, depth int) error {
	keys := make([][]byte, count)
	for i := range count {
		e, ok := element(body, i)
		if !ok {
			return damagef("a page breaks off")
		}
		flags, pos := binary.NativeEndian.Uint32(e), uint64(binary.NativeEndian.Uint32(e[4:]))
		ksize, vsize := uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
		value, ok1 := slice(e, pos+ksize, vsize)
		key, ok2 := slice(e, pos, ksize)
		if !ok1 || !ok2 || (flags == flagIsBucket) != isRoot || flags > flagIsBucket {
			return damagef("a page has an entry that is none")
		}
		keys[i] = key
		if !isRoot {
			continue
		}
		if len(value) < bucketHeader {
			return damagef("a bucket is cut off")
		}
		if root := binary.NativeEndian.Uint64(value); root != 0 {
			if err := c.tree(root, nil, nil, false, depth+1); err != nil {
				return err
			}
			continue
		}
		inline := value[bucketHeader:]
		if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
			return damagef("a bucket is cut off")
		}
		n := int(binary.NativeEndian.Uint16(inline[10:]))
		if err := c.leaf(inline[pageHeader:], n, nil, nil, false, depth+1); err != nil {
			return err
		}
	}
	return ascending(keys, least, end)
}

// element returns a page's body from its i-th element on: positions are
// counted from there.
func element(body []byte, i int) ([]byte, bool) {
	if (i+1)*elementSize > len(body) {
		return nil, false
	}
	return body[i*elementSize:], true
}

func slice(b []byte, from, n uint64) ([]byte, bool) {
	if from > uint64(len(b)) || n > uint64(len(b))-from {
		return nil, false
	}
	return b[from : from+n], true
}

func ascending(keys [][]byte, least, end []byte) error {
	for i, k := range keys {
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 || i == 0 && bytes.Compare(k, least) < 0 ||
			end != nil && bytes.Compare(k, end) >= 0 {
			return damagef("keys are out of order")
		}
	}
	return nil
}

// verify checks that the buckets hold together: each lane has its row, and
// what is parked is all there, since a parked object that is forgotten would
// be lost. In a small file every value is read.
func verify(tx *bolt.Tx, lanes map[uint32]progress.Lane, whole bool) error {
	rows := map[uint32]row{}
	if err := eachRow(tx, func(id uint32, r row) error {
		if _, ok := lanes[id]; !ok {
			return damagef("a head without a lane")
		}
		rows[id] = r
		return nil
	}); err != nil {
		return err
	}
	if len(rows) != len(lanes) {
		return damagef("a lane without a head")
	}
	count := func(bucket []byte, least int, have func(*row) uint64, check func(k, v []byte) (uint64, error)) error {
		n := map[uint32]uint64{}
		if err := tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			if len(k) < least || len(k) > maxKey {
				return damagef("a key in %s is too short or too long", bucket)
			}
			one, err := check(k, v)
			n[binary.BigEndian.Uint32(k)] += one
			return err
		}); err != nil {
			return err
		}
		for id := range rows {
			if r := rows[id]; have(&r) != n[id] {
				return damagef("%s holds %d of a lane that has %d", bucket, n[id], have(&r))
			}
		}
		return nil
	}
	sealed := func(bucket string) func(k, v []byte) (uint64, error) {
		return func(k, v []byte) (uint64, error) {
			_, err := unseal(bucket, k, v)
			return 1, err
		}
	}
	for _, name := range [...]string{"sources", "covered", "resyncs"} {
		if err := tx.Bucket([]byte(name)).ForEach(func(k, v []byte) error {
			_, err := unseal(name, k, v)
			return err
		}); err != nil {
			return err
		}
	}
	err := count(bucketParked, 12, func(r *row) uint64 { return r.parked }, sealed("parked"))
	if err != nil {
		return err
	}
	err = count(bucketPartial, 8, func(r *row) uint64 { return r.partial }, sealed("partial"))
	if err != nil || !whole {
		return err
	}
	err = count(bucketRecent, 8, func(r *row) uint64 { return r.recent }, func(k, v []byte) (uint64, error) {
		if !marked(k, v) {
			return 0, damagef("a settled entry does not have its mark")
		}
		return 1, nil
	})
	if err != nil {
		return err
	}
	return count(bucketPacked, runKeyLen, func(r *row) uint64 { return r.packed }, func(k, v []byte) (uint64, error) {
		run, err := readRun(k, v)
		return uint64(run.len()), err
	})
}
