// Package agenttest holds what the agent's tests put in the place of S3 and of
// receivers: a Bucket and an Output in memory, which count what they are asked
// and fail on demand in both ways — not done, and done with the answer lost.
package agenttest

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag is one
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
)

// Failure is how one call fails. The zero Failure is none.
type Failure struct {
	Err error
	// Done: the call does its work all the same, and only the answer is lost.
	Done bool
	// Cut, for a Get: the body ends with io.ErrUnexpectedEOF after so many bytes.
	Cut int
}

// Bucket is a bucket in memory. Its zero value is empty and ready. The hooks
// must be set before it is used; they are called without its lock.
type Bucket struct {
	// Fail, if not nil, is asked before each call: op is "list" or "get", what
	// the prefix or key.
	Fail func(op, what string) Failure
	// Latency is how long each call takes.
	Latency time.Duration
	// Skew is how far S3's clock is ahead of the local one.
	Skew time.Duration
	// NoTime: pages do not say when they were made.
	NoTime bool

	mu       sync.Mutex
	keys     []string // sorted, unless unsorted says otherwise
	unsorted bool
	objects  map[string]object
	lists    map[string]int // by prefix
	gets     map[string]int // by key
	busy     int
	most     int
}

type object struct {
	body     []byte
	etag     string
	modified time.Time
	archived bool
}

// Now returns the time by S3's clock.
func (b *Bucket) Now() time.Time { return time.Now().Add(b.Skew).UTC() }

// Put writes an object, as of now. The body is the bucket's from here on.
func (b *Bucket) Put(key string, body []byte) { b.PutAt(key, body, b.Now()) }

// PutAt writes an object with that time of writing.
func (b *Bucket) PutAt(key string, body []byte, modified time.Time) {
	sum := md5.Sum(body) //nolint:gosec // as above
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects == nil {
		b.objects = make(map[string]object)
	}
	if _, ok := b.objects[key]; !ok {
		b.unsorted = b.unsorted || len(b.keys) > 0 && key < b.keys[len(b.keys)-1]
		b.keys = append(b.keys, key)
	}
	b.objects[key] = object{body: body, etag: `"` + hex.EncodeToString(sum[:]) + `"`, modified: modified.Truncate(time.Second)}
}

// Delete removes an object.
func (b *Bucket) Delete(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sort()
	if i, ok := slices.BinarySearch(b.keys, key); ok {
		b.keys = slices.Delete(b.keys, i, i+1)
	}
	delete(b.objects, key)
}

// sort puts the keys in order; mu is held.
func (b *Bucket) sort() {
	if b.unsorted {
		slices.Sort(b.keys)
		b.unsorted = false
	}
}

// Lists returns how many LISTs there were of prefixes that begin with prefix.
func (b *Bucket) Lists(prefix string) int { return b.count(&b.lists, prefix) }

// Gets returns how many GETs there were of keys that begin with prefix.
func (b *Bucket) Gets(prefix string) int { return b.count(&b.gets, prefix) }

func (b *Bucket) count(of *map[string]int, prefix string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, c := range *of {
		if strings.HasPrefix(k, prefix) {
			n += c
		}
	}
	return n
}

// Most returns the most calls that were under way at once.
func (b *Bucket) Most() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most
}

// begin counts a call and waits for as long as it takes.
func (b *Bucket) begin(ctx context.Context, op, what string) (Failure, error) {
	b.mu.Lock()
	if b.lists == nil {
		b.lists, b.gets = make(map[string]int), make(map[string]int)
	}
	if op == "list" {
		b.lists[what]++
	} else {
		b.gets[what]++
	}
	b.busy++
	b.most = max(b.most, b.busy)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.busy--
		b.mu.Unlock()
	}()
	if b.Latency > 0 {
		t := time.NewTimer(b.Latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return Failure{}, err
	}
	if b.Fail == nil {
		return Failure{}, nil
	}
	return b.Fail(op, what), nil
}

// List implements agent.Bucket.
func (b *Bucket) List(ctx context.Context, r listing.Request) (listing.Page, error) {
	f, err := b.begin(ctx, "list", r.Prefix)
	if err == nil {
		err = f.Err
	}
	if err != nil {
		return listing.Page{}, err
	}
	limit := r.Limit
	if limit <= 0 || limit > listing.MaxEntries {
		limit = listing.MaxEntries
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sort()
	page := listing.Page{}
	if !b.NoTime {
		page.At = b.Now().Truncate(time.Second)
	}
	after := max(r.StartAfter, r.Token)
	i, _ := slices.BinarySearch(b.keys, max(after, r.Prefix))
	for n := 0; i < len(b.keys); {
		k := b.keys[i]
		rest, ok := strings.CutPrefix(k, r.Prefix)
		if !ok {
			break
		}
		next := k
		if d := strings.Index(rest, "/"); r.Delimiter != "" && d >= 0 {
			next = r.Prefix + rest[:d+1]
		}
		if next <= after {
			i++
			continue
		}
		if n == limit {
			if len(page.Prefixes) > 0 && (len(page.Entries) == 0 || page.Prefixes[len(page.Prefixes)-1] > page.Entries[len(page.Entries)-1].Key) {
				page.Token = page.Prefixes[len(page.Prefixes)-1]
			} else {
				page.Token = page.Entries[len(page.Entries)-1].Key
			}
			return page, nil
		}
		n++
		if next != k {
			page.Prefixes = append(page.Prefixes, next)
			i, _ = slices.BinarySearch(b.keys, next[:len(next)-1]+"0") // "0" follows "/"
			continue
		}
		o := b.objects[k]
		page.Entries = append(page.Entries, listing.Entry{
			Key: k, ETag: o.etag, Size: int64(len(o.body)), LastModified: o.modified, Archived: o.archived,
		})
		i++
	}
	return page, nil
}

// errNoKey is what S3 says of a key that does not exist.
var errNoKey = errors.New("NoSuchKey")

// Get implements agent.Bucket.
func (b *Bucket) Get(ctx context.Context, key, ifMatch string) (listing.Body, error) {
	f, err := b.begin(ctx, "get", key)
	if err == nil && !f.Done {
		err = f.Err
	}
	if err != nil {
		return listing.Body{}, err
	}
	b.mu.Lock()
	o, ok := b.objects[key]
	b.mu.Unlock()
	switch {
	case !ok:
		return listing.Body{}, &fault.Error{Kind: fault.Gone, Op: "reading " + key, Err: errNoKey}
	case ifMatch != "" && ifMatch != o.etag:
		return listing.Body{}, &fault.Error{Kind: fault.Changed, Op: "reading " + key, Err: errors.New("PreconditionFailed")}
	case o.archived:
		return listing.Body{}, &fault.Error{Kind: fault.Archived, Op: "reading " + key, Err: errors.New("InvalidObjectState")}
	case f.Err != nil:
		return listing.Body{}, f.Err
	}
	var r io.Reader = bytes.NewReader(o.body)
	if f.Cut > 0 {
		r = io.MultiReader(bytes.NewReader(o.body[:min(f.Cut, len(o.body))]), broken{})
	}
	return listing.Body{ReadCloser: io.NopCloser(r), Size: int64(len(o.body)), ETag: o.etag}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
