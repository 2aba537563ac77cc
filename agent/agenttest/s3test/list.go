package s3test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

const maxKeys = 1000

// page is one page of a listing.
type page struct {
	items    []item
	prefixes []string
	more     bool
	last     string // the last key or prefix on the page
	rolled   bool   // last is a prefix
}

// query is what a page is asked for.
type query struct {
	prefix, delimiter string
	startAfter        string
	after             string // from a continuation token: the last of the page before
	rolled            bool   // after is a prefix: all that begins with it is done
	limit             int
}

// paginate returns one page, in O(log n) for each entry at most.
func paginate(items []item, q query) page {
	var p page
	if q.limit <= 0 {
		return p
	}
	at, _ := find(items, q.prefix)
	at = max(at, past(items, q.startAfter, false), past(items, q.after, q.rolled))
	for n := 0; at < len(items) && strings.HasPrefix(items[at].key, q.prefix); {
		key, group := items[at].key, ""
		if q.delimiter != "" {
			if i := strings.Index(key[len(q.prefix):], q.delimiter); i >= 0 {
				group = key[:len(q.prefix)+i+len(q.delimiter)]
			}
		}
		// "CommonPrefixes is filtered out if it is not lexicographically
		// greater than StartAfter": ListObjectsV2 in the S3 API reference.
		if group != "" && q.startAfter != "" && group <= q.startAfter {
			at = past(items, group, true)
			continue
		}
		if n == q.limit {
			p.more = true
			break
		}
		n++
		if group != "" {
			p.prefixes = append(p.prefixes, group)
			p.last, p.rolled = group, true
			at = past(items, group, true)
			continue
		}
		p.items = append(p.items, items[at])
		p.last, p.rolled = key, false
		at++
	}
	return p
}

// past returns where the keys greater than s begin or, if rolled, those that
// don't begin with s, either.
func past(items []item, s string, rolled bool) int {
	if s == "" {
		return 0
	}
	return sort.Search(len(items), func(i int) bool {
		return items[i].key > s && (!rolled || !strings.HasPrefix(items[i].key, s))
	})
}

func (p *page) token() string {
	kind := "k"
	if p.rolled {
		kind = "p"
	}
	return base64.URLEncoding.EncodeToString([]byte(kind + p.last))
}

func (q *query) resume(token string) bool {
	b, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(b) < 2 || !slices.Contains([]byte("kp"), b[0]) {
		return false
	}
	q.after, q.rolled = string(b[1:]), b[0] == 'p'
	return true
}

// list answers ListObjectsV2.
func (b *bucket) list(name string, v url.Values, header http.Header, fault Fault) reply {
	q := query{prefix: v.Get("prefix"), delimiter: v.Get("delimiter"), limit: maxKeys}
	invalid := func(what string) reply {
		return (&apiError{400, "InvalidArgument", what, ""}).reply(false)
	}
	if s := v.Get("max-keys"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return invalid("Provided max-keys not an integer or within integer range")
		}
		q.limit = min(n, maxKeys)
	}
	switch token := v.Get("continuation-token"); {
	case fault.Kind == Repeat:
	case token == "":
		q.startAfter = v.Get("start-after") // ignored beside a token
	case !q.resume(token):
		return invalid("The continuation token provided is incorrect")
	}
	encode := func(s string) string { return s }
	switch v.Get("encoding-type") {
	case "":
	case "url":
		encode = urlEncode
	default:
		return invalid("Invalid Encoding Method specified in Request")
	}
	asked := q.limit
	if fault.Kind == EndEarly {
		q.limit = min(q.limit, max(1, int(fault.N)))
	}
	p := paginate(b.items(), q)

	var x strings.Builder
	x.Grow(512 + 400*len(p.items))
	element := func(name, value string) {
		x.WriteByte('<')
		x.WriteString(name)
		x.WriteByte('>')
		writeXML(&x, value)
		x.WriteString("</")
		x.WriteString(name)
		x.WriteByte('>')
	}
	x.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`)
	element("Name", name)
	element("Prefix", encode(q.prefix))
	element("KeyCount", strconv.Itoa(len(p.items)+len(p.prefixes)))
	element("MaxKeys", strconv.Itoa(asked))
	element("IsTruncated", strconv.FormatBool(p.more))
	for _, name := range []string{"delimiter", "start-after"} {
		if s := v.Get(name); s != "" {
			element(map[string]string{"delimiter": "Delimiter", "start-after": "StartAfter"}[name], encode(s))
		}
	}
	if v.Get("encoding-type") != "" {
		element("EncodingType", "url")
	}
	if p.more {
		element("NextContinuationToken", p.token())
	}
	for i := range p.items {
		it := &p.items[i]
		x.WriteString("<Contents>")
		element("Key", encode(it.key))
		element("LastModified", it.obj.modified)
		element("ETag", it.etag())
		element("Size", strconv.FormatInt(it.obj.size(it.key), 10))
		class := it.obj.StorageClass
		if class == "" {
			class = "STANDARD"
		}
		element("StorageClass", class)
		if it.obj.Restored && header.Get("X-Amz-Optional-Object-Attributes") == "RestoreStatus" {
			x.WriteString("<RestoreStatus>")
			element("IsRestoreInProgress", "false")
			element("RestoreExpiryDate", it.obj.LastModified.AddDate(1, 0, 0).UTC().Format("2006-01-02T15:04:05.000Z"))
			x.WriteString("</RestoreStatus>")
		}
		x.WriteString("</Contents>")
	}
	for _, prefix := range p.prefixes {
		x.WriteString("<CommonPrefixes>")
		element("Prefix", encode(prefix))
		x.WriteString("</CommonPrefixes>")
	}
	x.WriteString("</ListBucketResult>")

	out := reply{status: http.StatusOK, header: http.Header{}, body: []byte(x.String())}
	out.header.Set("Content-Type", "application/xml")
	return out
}

// writeXML writes s as XML text, as S3 does: characters that XML 1.0 can't
// hold become references all the same, which is why clients ask for
// encoding-type=url.
func writeXML(b *strings.Builder, s string) {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || strings.ContainsRune(`&<>"`, r) }) {
		b.WriteString(s)
		return
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '"':
			b.WriteString("&quot;")
		case r < 0x20 || r == 0x7f:
			b.WriteString("&#x" + strconv.FormatInt(int64(r), 16) + ";")
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
}
