package s3test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A listing by pages, of whatever size and from wherever, is what a plain loop
// over all keys finds.
func TestPaginateAgainstLoop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[ab/é0]{0,5}`)
		set := map[string]bool{}
		for _, k := range rapid.SliceOf(name).Draw(t, "keys") {
			if k != "" {
				set[k] = true
			}
		}
		var items []item
		for k := range set {
			items = append(items, item{key: k})
		}
		slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.key, b.key) })
		q := query{
			prefix:     name.Draw(t, "prefix"),
			startAfter: name.Draw(t, "start after"),
			delimiter:  rapid.SampledFrom([]string{"", "/", "ab"}).Draw(t, "delimiter"),
			limit:      rapid.IntRange(1, 4).Draw(t, "limit"),
		}

		var want []string
		for _, it := range items {
			rest, ok := strings.CutPrefix(it.key, q.prefix)
			if !ok || it.key <= q.startAfter {
				continue
			}
			entry := it.key
			if q.delimiter != "" {
				if i := strings.Index(rest, q.delimiter); i >= 0 {
					entry = q.prefix + rest[:i] + q.delimiter + "*"
					if strings.TrimSuffix(entry, "*") <= q.startAfter || slices.Contains(want, entry) {
						continue
					}
				}
			}
			want = append(want, entry)
		}

		var got []string
		for pages := 0; ; pages++ {
			p := paginate(items, q)
			if n := len(p.items) + len(p.prefixes); n > q.limit || p.more && n != q.limit {
				t.Fatalf("page of %d, limit %d, more %t", n, q.limit, p.more)
			}
			var entries []string
			for _, it := range p.items {
				entries = append(entries, it.key)
			}
			for _, s := range p.prefixes {
				entries = append(entries, s+"*")
			}
			slices.SortFunc(entries, func(a, b string) int {
				return strings.Compare(strings.TrimSuffix(a, "*"), strings.TrimSuffix(b, "*"))
			})
			got = append(got, entries...)
			if !p.more {
				break
			}
			if !q.resume(p.token()) || pages > len(items) {
				t.Fatalf("the listing does not go on: %+v", q)
			}
			q.startAfter = ""
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%+v: %s", q, d)
		}
	})
}

// What is put and deleted, in any order, is what a map holds.
func TestStoreAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Config{})
		model := map[string]string{}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			key := rapid.StringMatching(`[a-d]{1,2}`).Draw(t, "key")
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				body := rapid.StringN(0, 4, -1).Draw(t, "body")
				s.Put("b", key, []byte(body))
				model[key] = body
			case 2:
				s.Delete("b", key)
				delete(model, key)
			case 3:
				got := map[string]string{}
				for _, it := range s.bucket("b").items() {
					got[it.key] = string(it.obj.Body)
				}
				if d := cmp.Diff(model, got); d != "" {
					t.Fatal(d)
				}
			}
		}
		if s.Len("b") != len(model) {
			t.Fatalf("%d objects, want %d", s.Len("b"), len(model))
		}
	})
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

const date = "20261120T120000Z"

// do sends a request that looks signed.
func do(t *testing.T, method, url string, header map[string]string) *http.Response {
	t.Helper()
	resp, err := try(t, method, url, header)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func try(t *testing.T, method, url string, header map[string]string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", authorization("AKTEST", "eu-west-1"))
	r.Header.Set("X-Amz-Date", date)
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	r.Header.Set("Accept-Encoding", "identity")
	for name, value := range header {
		r.Header.Set(name, value)
	}
	if header["Host"] != "" {
		r.Host = header["Host"]
	}
	resp, err := http.DefaultClient.Do(r)
	if err == nil {
		t.Cleanup(func() { _ = resp.Body.Close() })
	}
	return resp, err
}

func authorization(key, region string) string {
	return "AWS4-HMAC-SHA256 Credential=" + key + "/20261120/" + region + "/s3/aws4_request, " +
		"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + strings.Repeat("a", 64)
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAuthorization(t *testing.T) {
	s := start(t, Config{AccessKey: "AKTEST", Region: "eu-west-1"})
	s.Put("b", "k", []byte("x"))
	for _, tt := range []struct {
		name, header, date string
		status             int
		code               string
	}{
		{"good", authorization("AKTEST", "eu-west-1"), date, 200, ""},
		{"none", "", date, 403, "AccessDenied"},
		{"another scheme", "Bearer x", date, 400, "AuthorizationHeaderMalformed"},
		{"unknown key", authorization("AKOTHER", "eu-west-1"), date, 403, "InvalidAccessKeyId"},
		{"other region", authorization("AKTEST", "us-east-1"), date, 400, "<Region>eu-west-1</Region>"},
		{"no date", authorization("AKTEST", "eu-west-1"), "", 400, "AuthorizationHeaderMalformed"},
		{"short signature", strings.TrimSuffix(authorization("AKTEST", "eu-west-1"), "a"), date, 400, "AuthorizationHeaderMalformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := do(t, "GET", s.URL()+"/b/k", map[string]string{"Authorization": tt.header, "X-Amz-Date": tt.date})
			if body := read(t, resp); resp.StatusCode != tt.status || !strings.Contains(body, tt.code) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if got := resp.Header.Get("X-Amz-Bucket-Region"); got != "eu-west-1" {
				t.Errorf("bucket region %q", got)
			}
		})
	}
}

func TestSkew(t *testing.T) {
	signed, err := time.Parse("20060102T150405Z", date)
	if err != nil {
		t.Fatal(err)
	}
	clock := signed
	s := start(t, Config{Now: func() time.Time { return clock }, MaxSkew: 15 * time.Minute})
	s.Put("b", "k", []byte("x"))
	for off, status := range map[time.Duration]int{
		0: 200, 15 * time.Minute: 200, -15 * time.Minute: 200,
		16 * time.Minute: 403, -16 * time.Minute: 403, 48 * time.Hour: 403,
	} {
		clock = signed.Add(off)
		resp := do(t, "GET", s.URL()+"/b/k", nil)
		body := read(t, resp)
		if resp.StatusCode != status || strings.Contains(body, Skewed) != (status == 403) {
			t.Errorf("%v off: %d %s", off, resp.StatusCode, body)
		}
	}
}

func TestGet(t *testing.T) {
	clock := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	s := start(t, Config{Now: func() time.Time { return clock }})
	etag := s.Put("b", "dir/k +%\x01é", []byte("0123456789"))
	s.PutObject("b", "cold", Object{Body: []byte("x"), StorageClass: "DEEP_ARCHIVE"})
	s.PutObject("b", "thawed", Object{Body: []byte("x"), StorageClass: "GLACIER", Restored: true})
	s.PutObject("b", "made", Object{Make: func(key string) []byte { return []byte(key + key) }})
	s.Put("b", "packed", []byte{0x1f, 0x8b, 8})

	for _, tt := range []struct {
		method, path string
		header       map[string]string
		status       int
		body         string
	}{
		{"GET", "/b/" + url.PathEscape("dir/k +%\x01é"), nil, 200, "0123456789"},
		{"GET", "/dir/" + url.PathEscape("k +%\x01é"), map[string]string{"Host": "b.s3.example.com:80"}, 200, "0123456789"},
		{"HEAD", "/b/packed", nil, 200, ""},
		{"GET", "/b/packed", nil, 200, "\x1f\x8b\x08"},
		{"GET", "/b/made", nil, 200, "mademade"},
		{"GET", "/b/none", nil, 404, "NoSuchKey"},
		{"GET", "/other/none", nil, 404, "NoSuchBucket"},
		{"HEAD", "/b", nil, 200, ""},
		{"HEAD", "/other", nil, 404, ""},
		{"GET", "/b/cold", nil, 403, "InvalidObjectState"},
		{"GET", "/b/thawed", nil, 200, "x"},
		{"GET", "/b/" + url.PathEscape("dir/k +%\x01é"), map[string]string{"If-Match": etag}, 200, "0123456789"},
		{"GET", "/b/" + url.PathEscape("dir/k +%\x01é"), map[string]string{"If-Match": `"no"`}, 412, "PreconditionFailed"},
		{"GET", "/b/" + url.PathEscape("dir/k +%\x01é"), map[string]string{"Range": "bytes=2-4"}, 206, "234"},
		{"GET", "/b/" + url.PathEscape("dir/k +%\x01é"), map[string]string{"Range": "bytes=7-"}, 206, "789"},
		{"GET", "/b/" + url.PathEscape("dir/k +%\x01é"), map[string]string{"Range": "bytes=-3"}, 206, "789"},
		{"GET", "/b/" + url.PathEscape("dir/k +%\x01é"), map[string]string{"Range": "bytes=10-11"}, 416, "InvalidRange"},
		{"PUT", "/b/k", nil, 501, "NotImplemented"},
	} {
		resp := do(t, tt.method, s.URL()+tt.path, tt.header)
		body := read(t, resp)
		if resp.StatusCode != tt.status || tt.status < 300 && body != tt.body || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s %v: %d %q, want %d %q", tt.method, tt.path, tt.header, resp.StatusCode, body, tt.status, tt.body)
		}
		if got := resp.Header.Get("Date"); got != "Fri, 20 Nov 2026 12:00:00 GMT" {
			t.Errorf("date %q", got)
		}
	}
	if n := s.Count(GetObject); n != 14 {
		t.Errorf("%d GetObject, want 14", n)
	}
	if s.Count(HeadBucket) != 2 || s.Count(HeadObject) != 1 {
		t.Errorf("%d HeadBucket and %d HeadObject", s.Count(HeadBucket), s.Count(HeadObject))
	}
	s.ResetCounts()
	if s.Count(GetObject) != 0 {
		t.Error("counts are not reset")
	}
}

// Odd keys come through as XML, encoded or not where XML can hold them.
func TestListKeys(t *testing.T) {
	s := start(t, Config{})
	keys := []string{"a b", "a%2Bb", "a&b<c>", "a+b", "a/b", "aéb"}
	for _, k := range keys {
		s.Put("b", k, nil)
	}
	for _, encoding := range []string{"", "url"} {
		resp := do(t, "GET", s.URL()+"/b?list-type=2&encoding-type="+encoding, nil)
		var page struct {
			Contents []struct{ Key, ETag string }
		}
		if err := xml.NewDecoder(resp.Body).Decode(&page); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range page.Contents {
			key := c.Key
			if encoding != "" {
				var err error
				if key, err = url.QueryUnescape(key); err != nil {
					t.Fatal(err)
				}
			}
			got = append(got, key)
		}
		if d := cmp.Diff(keys, got); d != "" {
			t.Errorf("encoding %q: %s", encoding, d)
		}
	}
	for _, bad := range []string{"max-keys=x", "max-keys=-1", "continuation-token=!", "encoding-type=base64"} {
		if resp := do(t, "GET", s.URL()+"/b?list-type=2&"+bad, nil); resp.StatusCode != 400 {
			t.Errorf("%s: %d", bad, resp.StatusCode)
		}
	}
}

func TestFaults(t *testing.T) {
	const path = "/b/k"
	body := strings.Repeat("0123456789", 1000)
	for _, tt := range []struct {
		name  string
		fault Fault
		check func(t *testing.T, resp *http.Response, err error)
	}{
		{"answer", Fault{Kind: Answer, Status: 503, Code: "SlowDown", Message: "a<b", Header: map[string]string{"Retry-After": "7"}}, func(t *testing.T, resp *http.Response, _ error) {
			if b := read(t, resp); resp.StatusCode != 503 || !strings.Contains(b, "<Code>SlowDown</Code><Message>a&lt;b</Message>") || resp.Header.Get("Retry-After") != "7" {
				t.Errorf("%d %s %v", resp.StatusCode, b, resp.Header)
			}
		}},
		{"error in a good answer", Fault{Kind: Answer, Code: "InternalError"}, func(t *testing.T, resp *http.Response, _ error) {
			if b := read(t, resp); resp.StatusCode != 200 || !strings.Contains(b, "InternalError") {
				t.Errorf("%d %s", resp.StatusCode, b)
			}
		}},
		{"raw", Fault{Kind: Raw, Body: "<html>", Header: map[string]string{"Content-Type": "text/html"}}, func(t *testing.T, resp *http.Response, _ error) {
			if b := read(t, resp); resp.StatusCode != 200 || b != "<html>" || resp.Header.Get("Content-Type") != "text/html" {
				t.Errorf("%d %s", resp.StatusCode, b)
			}
		}},
		{"cut", Fault{Kind: Cut, N: 5000}, func(t *testing.T, resp *http.Response, _ error) {
			b, err := io.ReadAll(resp.Body)
			if len(b) != 5000 || !errors.Is(err, io.ErrUnexpectedEOF) || resp.ContentLength != 10000 {
				t.Errorf("%d of %d bytes, %v", len(b), resp.ContentLength, err)
			}
		}},
		{"short", Fault{Kind: Short, N: 5000}, func(t *testing.T, resp *http.Response, _ error) {
			if b := read(t, resp); len(b) != 5000 || resp.ContentLength != 5000 {
				t.Errorf("%d of %d bytes", len(b), resp.ContentLength)
			}
		}},
		{"flip", Fault{Kind: Flip, N: 5000}, func(t *testing.T, resp *http.Response, _ error) {
			if b := read(t, resp); len(b) != 10000 || b[5000] == body[5000] || b[:5000] != body[:5000] || b[5001:] != body[5001:] {
				t.Errorf("not one byte flipped")
			}
		}},
		{"reset before", Fault{Kind: ResetBefore}, func(t *testing.T, _ *http.Response, err error) {
			if err == nil {
				t.Error("answered")
			}
		}},
		{"reset after", Fault{Kind: ResetAfter, N: 5000}, func(t *testing.T, resp *http.Response, err error) {
			if err != nil {
				return // the reset may overtake what was sent
			}
			if b, err := io.ReadAll(resp.Body); err == nil || len(b) > 5000 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		}},
		{"delay", Fault{Delay: time.Millisecond}, func(t *testing.T, resp *http.Response, _ error) {
			if b := read(t, resp); b != body {
				t.Errorf("%d bytes", len(b))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, Config{})
			s.Put("b", "k", []byte(body))
			s.Inject(func(op, bucket, key string, n int) Fault {
				if op != GetObject || bucket != "b" || key != "k" || n < 1 {
					t.Errorf("injecting into %s %s %s %d", op, bucket, key, n)
				}
				return tt.fault
			})
			resp, err := try(t, "GET", s.URL()+path, nil)
			tt.check(t, resp, err)
		})
	}
}

// A stall ends when the server closes.
func TestStall(t *testing.T) {
	s := start(t, Config{})
	s.Put("b", "k", bytes.Repeat([]byte("x"), 100))
	s.Inject(func(string, string, string, int) Fault { return Fault{Kind: Stall, N: 10} })
	resp := do(t, "GET", s.URL()+"/b/k", nil)
	if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("read on after the stall")
	}
}

func TestListFaults(t *testing.T) {
	s := start(t, Config{})
	for i := range 5 {
		s.Put("b", fmt.Sprint(i), nil)
	}
	list := func(token string) (keys []string, next string) {
		var page struct {
			NextContinuationToken string
			Contents              []struct{ Key string }
		}
		resp := do(t, "GET", s.URL()+"/b?list-type=2&max-keys=2&continuation-token="+url.QueryEscape(token), nil)
		if err := xml.NewDecoder(resp.Body).Decode(&page); err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Contents {
			keys = append(keys, c.Key)
		}
		return keys, page.NextContinuationToken
	}
	s.Inject(func(_, _, _ string, n int) Fault {
		return []Fault{{Kind: EndEarly}, {}, {Kind: Repeat}, {}}[n-1]
	})
	var got []string
	token := ""
	for range 4 {
		var keys []string
		keys, token = list(token)
		got = append(got, strings.Join(keys, ""))
	}
	if d := cmp.Diff([]string{"0", "12", "01", "23"}, got); d != "" {
		t.Error(d)
	}
}

// A page of a bucket with 300,000 keys, put in no order.
func BenchmarkListPage(b *testing.B) {
	s := New(Config{})
	s.PutAll("b", func(yield func(string) bool) {
		for i := range 300_000 {
			if !yield(fmt.Sprintf("AWSLogs/%012d/CloudTrail/%d", i*7919%300_000, i)) {
				return
			}
		}
	}, Object{Size: 1000, Make: func(string) []byte { return nil }})
	s.Len("b")
	q := url.Values{"encoding-type": {"url"}, "start-after": {"AWSLogs/000000150000"}}
	b.ReportAllocs()
	for b.Loop() {
		if out := s.buckets["b"].list("b", q, nil, Fault{}); len(out.body) < 100_000 {
			b.Fatal("no full page")
		}
	}
}
