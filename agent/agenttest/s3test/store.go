package s3test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"iter"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Object is what is put under a key.
type Object struct {
	// Body is the content. It must not change afterwards.
	Body []byte
	// Make returns the content instead of Body each time that it is asked
	// for, always the same for a key; many keys may share it. It may be
	// called from several goroutines at once.
	Make func(key string) []byte
	// Size is what listings say of a content that Make makes; 0 = make it and
	// see.
	Size int64
	// LastModified is when it was put; zero = now, by the server's clock.
	LastModified time.Time
	// StorageClass, as GLACIER; "" = STANDARD. GLACIER and DEEP_ARCHIVE are
	// not readable, unless Restored.
	StorageClass string
	Restored     bool
	// ContentType; "" = application/json, as CloudTrail has it.
	ContentType string
}

// archived reports whether the object must be restored before it is read.
func (o *Object) archived() bool {
	return (o.StorageClass == "GLACIER" || o.StorageClass == "DEEP_ARCHIVE") && !o.Restored
}

func (o *Object) content(key string) []byte {
	if o.Make != nil {
		return o.Make(key)
	}
	return o.Body
}

func (o *Object) size(key string) int64 {
	switch {
	case o.Make == nil:
		return int64(len(o.Body))
	case o.Size > 0:
		return o.Size
	}
	return int64(len(o.Make(key)))
}

// item is a key with its object. Objects are shared, keys are many.
type item struct {
	key string
	obj *stored
}

type stored struct {
	Object
	tag      string // with a Body: its digest; with Make: different each time that it is put
	modified string // as listings say it
}

func (it *item) etag() string {
	if it.obj.Make == nil {
		return `"` + it.obj.tag + `"`
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(it.key))
	return `"` + it.obj.tag + hex.EncodeToString(h.Sum(nil)) + `"`
}

// bucket is the objects of one bucket: a sorted run, and what was put since it
// was sorted, so that a million keys in any order cost one sort.
type bucket struct {
	mu     sync.Mutex
	sorted []item // by key, each once; never changed in place, so that readers need no lock
	fresh  []item // in the order they were put
	puts   int
}

// CreateBucket makes an empty bucket, unless there is one.
func (s *Server) CreateBucket(name string) { s.bucket(name) }

func (s *Server) bucket(name string) *bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[name] == nil {
		s.buckets[name] = &bucket{}
	}
	return s.buckets[name]
}

// Put puts a content under a key, in place of what was there, and makes the
// bucket if there is none. It returns the object's ETag.
func (s *Server) Put(bucket, key string, body []byte) string {
	return s.PutObject(bucket, key, Object{Body: body})
}

// PutObject is Put for all that an Object may be.
func (s *Server) PutObject(bucket, key string, o Object) string {
	obj := s.prepare(o)
	b := s.bucket(bucket)
	b.mu.Lock()
	defer b.mu.Unlock()
	it := b.add(key, obj)
	return it.etag()
}

// PutAll puts the same object under many keys, in any order. It is the way to
// make a bucket of millions.
func (s *Server) PutAll(bucket string, keys iter.Seq[string], o Object) {
	obj := s.prepare(o)
	b := s.bucket(bucket)
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range keys {
		b.add(key, obj)
	}
}

func (s *Server) prepare(o Object) *stored {
	if o.LastModified.IsZero() {
		o.LastModified = s.cfg.Now()
	}
	obj := &stored{Object: o, modified: o.LastModified.UTC().Format("2006-01-02T15:04:05.000Z")}
	if o.Make == nil {
		sum := sha256.Sum256(o.Body)
		obj.tag = hex.EncodeToString(sum[:16])
	}
	return obj
}

func (b *bucket) add(key string, obj *stored) *item {
	if obj.Make != nil && obj.tag == "" {
		b.puts++
		obj.tag = fmt.Sprintf("%016x", b.puts)
	}
	b.fresh = append(b.fresh, item{key, obj})
	return &b.fresh[len(b.fresh)-1]
}

// Delete takes an object away; nothing happens if there is none.
func (s *Server) Delete(bucket, key string) {
	b := s.bucket(bucket)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sort()
	if i, found := find(b.sorted, key); found {
		b.sorted = slices.Concat(b.sorted[:i], b.sorted[i+1:])
	}
}

// Len returns how many objects a bucket holds.
func (s *Server) Len(bucket string) int { return len(s.bucket(bucket).items()) }

// items returns all objects by key. The slice is never changed.
func (b *bucket) items() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sort()
	return b.sorted
}

// sort brings what was put among the sorted. b.mu is held.
func (b *bucket) sort() {
	if len(b.fresh) == 0 {
		return
	}
	fresh := b.fresh
	b.fresh = nil
	slices.SortStableFunc(fresh, func(x, y item) int { return strings.Compare(x.key, y.key) })
	merged := make([]item, 0, len(b.sorted)+len(fresh))
	i := 0
	for j, it := range fresh {
		if j+1 < len(fresh) && fresh[j+1].key == it.key {
			continue // put again later
		}
		n := sort.Search(len(b.sorted)-i, func(k int) bool { return b.sorted[i+k].key >= it.key })
		merged = append(merged, b.sorted[i:i+n]...)
		i += n
		if i < len(b.sorted) && b.sorted[i].key == it.key {
			i++
		}
		merged = append(merged, it)
	}
	b.sorted = append(merged, b.sorted[i:]...)
}

// find returns where key is among items, or would be.
func find(items []item, key string) (int, bool) {
	return slices.BinarySearchFunc(items, key, func(it item, key string) int { return strings.Compare(it.key, key) })
}

// get answers GetObject and HeadObject.
func (b *bucket) get(key string, request http.Header) reply {
	items := b.items()
	i, found := find(items, key)
	if !found {
		return (&apiError{404, "NoSuchKey", "The specified key does not exist.", ""}).reply(false)
	}
	it := &items[i]
	etag := it.etag()
	if want := request.Get("If-Match"); want != "" && want != "*" && strings.Trim(want, `"`) != strings.Trim(etag, `"`) {
		return (&apiError{412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold", ""}).reply(false)
	}
	if it.obj.archived() {
		return (&apiError{403, "InvalidObjectState", "The operation is not valid for the object's storage class", ""}).reply(false)
	}

	body := it.obj.content(key)
	out := reply{status: http.StatusOK, header: http.Header{}}
	h := out.header
	h.Set("ETag", etag)
	h.Set("Last-Modified", it.obj.LastModified.UTC().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "application/json")
	if it.obj.ContentType != "" {
		h.Set("Content-Type", it.obj.ContentType)
	}
	if len(body) > 1 && body[0] == 0x1f && body[1] == 0x8b {
		h.Set("Content-Encoding", "gzip") // as CloudTrail has it
	}
	if from, to, ok := byteRange(request.Get("Range"), len(body)); ok {
		if from >= to {
			return (&apiError{416, "InvalidRange", "The requested range is not satisfiable", ""}).reply(false)
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(body)))
		out.status, body = http.StatusPartialContent, body[from:to]
	}
	out.body, out.size = body, int64(len(body))
	return out
}

// byteRange reads a Range header of one range as [from, to).
func byteRange(header string, size int) (from, to int, ok bool) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return 0, 0, false
	}
	a, z, ok := strings.Cut(spec, "-")
	if !ok {
		return 0, 0, false
	}
	last, lastErr := strconv.Atoi(z)
	if a == "" {
		return max(0, size-last), size, lastErr == nil
	}
	from, err := strconv.Atoi(a)
	if err != nil || z != "" && lastErr != nil {
		return 0, 0, false
	}
	if z == "" || last >= size {
		last = size - 1
	}
	return from, last + 1, true
}
