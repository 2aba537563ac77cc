// Package listing holds what the agent asks of a bucket and what it is
// answered: requests, pages, entries, bodies. It imports nothing of ours.
package listing

import (
	"io"
	"time"
)

// MaxEntries is the most entries and prefixes that S3 puts on one page.
const MaxEntries = 1000

// Request asks for one page of a listing (S3's ListObjectsV2).
type Request struct {
	Prefix string
	// StartAfter is a whole key: entries greater than it are wanted. It need
	// not exist.
	StartAfter string
	// Delimiter, "/" or "", rolls keys up into Page.Prefixes.
	Delimiter string
	// Token continues a listing where Page.Token left it. Never kept beyond
	// the listing.
	Token string
	// Limit is the most entries wanted; 0 = MaxEntries.
	Limit int
}

// Page is one page of a listing, in S3's order (UTF-8 bytes).
type Page struct {
	Entries  []Entry
	Prefixes []string // whole prefixes, each with its delimiter; with Request.Delimiter only
	// Token continues the listing; "" on the last page.
	Token string
	// At is when S3 answered, by S3's clock (its Date header, whole seconds,
	// UTC); zero if it did not say.
	At time.Time
}

// Last reports whether the listing ends with this page.
func (p *Page) Last() bool { return p.Token == "" }

// Entry is one object of a page.
type Entry struct {
	Key          string
	ETag         string // as S3 gives it, with its quotes
	Size         int64  // bytes, as stored
	LastModified time.Time
	Archived     bool // in a storage class that must be restored before reading
}

// Body is an object being read. Its reader returns io.ErrUnexpectedEOF if the
// connection ends before Size bytes, and a fault.Error if it stalls. Whoever
// is given a Body closes it.
type Body struct {
	io.ReadCloser
	Size int64  // bytes, as stored; -1 if S3 did not say
	ETag string // as S3 gives it
}
