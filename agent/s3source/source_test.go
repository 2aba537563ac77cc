package s3source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testKey    = "AKIDTEST"
	testSecret = "s3cr3t-of-the-test"
	bucket     = "acme-cloudtrail-logs"
)

// at is a source of the test bucket on some server.
func at(t *testing.T, endpoint string, change ...func(*Config)) *Source {
	t.Helper()
	cfg := Config{
		Bucket: bucket, Region: "eu-west-1", Endpoint: endpoint, PathStyle: true,
		Credentials: Credentials{Type: Static, AccessKeyID: testKey, SecretAccessKey: testSecret},
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func server(t *testing.T, cfg s3test.Config) *s3test.Server {
	t.Helper()
	if cfg.AccessKey == "" {
		cfg.AccessKey = testKey
	}
	s, err := s3test.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.CreateBucket(bucket)
	return s
}

// oddKeys are keys that XML, URLs or a careless program get wrong, in order.
func oddKeys() []string {
	keys := []string{
		"odd/ leading space", "odd/%2B", "odd/%zz", "odd/&amp;", "odd/'\"<>", "odd/+plus+", "odd/a b", "odd/a+b",
		"odd/a?b=c&d#e", "odd/a\tb\nc", "odd/a\x01\x1f\x7f", "odd/dots/a..b", "odd/~!@$^*()=;:,[]{}|\\`", "odd/é", "odd/日本", "odd/😀",
	}
	slices.Sort(keys)
	return keys
}

// conformance is what a bucket must do, whoever serves it.
func conformance(t *testing.T, s *Source, oddKeys []string, put func(key string, body []byte)) {
	ctx := t.Context()
	all := func(t *testing.T, r listing.Request) (keys, prefixes []string) {
		t.Helper()
		for range 100 {
			p, err := s.List(ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Since(p.At); d < -time.Minute || d > time.Minute || p.At.Location() != time.UTC {
				t.Errorf("the page is of %v", p.At)
			}
			for _, e := range p.Entries {
				keys = append(keys, e.Key)
			}
			prefixes = append(prefixes, p.Prefixes...)
			if p.Last() {
				return keys, prefixes
			}
			r.Token = p.Token
		}
		t.Fatal("the listing has no end")
		return nil, nil
	}

	t.Run("odd keys", func(t *testing.T) {
		for _, k := range oddKeys {
			put(k, []byte("body of "+k))
		}
		keys, _ := all(t, listing.Request{Prefix: "odd/"})
		if d := cmp.Diff(oddKeys, keys); d != "" {
			t.Error(d)
		}
		for _, k := range keys {
			p, err := s.List(ctx, listing.Request{Prefix: "odd/", StartAfter: k, Limit: 1})
			if err != nil {
				t.Errorf("listing from %q: %v", k, err)
			} else if i := slices.Index(oddKeys, k); i+1 < len(oddKeys) && (len(p.Entries) != 1 || p.Entries[0].Key != oddKeys[i+1]) {
				t.Errorf("after %q comes %v", k, p.Entries)
			}
			b, err := s.Get(ctx, k, "")
			if err != nil {
				t.Errorf("%q: %v", k, err)
				continue
			}
			if got := readAll(t, b); got != "body of "+k {
				t.Errorf("%q holds %q", k, got)
			}
		}
	})

	t.Run("pages", func(t *testing.T) {
		var want []string
		for i := range 23 {
			k := fmt.Sprintf("pages/%02d/%d", i/5, i)
			put(k, []byte{byte(i)})
			want = append(want, k)
		}
		slices.Sort(want)
		for _, limit := range []int{0, 1, 7, 23} {
			if keys, _ := all(t, listing.Request{Prefix: "pages/", Limit: limit}); !slices.Equal(keys, want) {
				t.Errorf("limit %d: %v", limit, keys)
			}
		}
		if keys, _ := all(t, listing.Request{Prefix: "pages/", StartAfter: "pages/02/zzz", Limit: 2}); !slices.Equal(keys, want[15:]) {
			t.Errorf("from pages/03/ on: %v", keys)
		}
		for _, limit := range []int{0, 1, 2} {
			keys, prefixes := all(t, listing.Request{Prefix: "pages/", Delimiter: "/", Limit: limit})
			if d := cmp.Diff([]string{"pages/00/", "pages/01/", "pages/02/", "pages/03/", "pages/04/"}, prefixes); d != "" || keys != nil {
				t.Errorf("limit %d: %s, keys %v", limit, d, keys)
			}
		}
		if keys, prefixes := all(t, listing.Request{Prefix: "none/"}); keys != nil || prefixes != nil {
			t.Errorf("nothing is %v, %v", keys, prefixes)
		}
	})

	t.Run("objects", func(t *testing.T) {
		content := bytes.Repeat([]byte{0x1f, 0x8b, 8, 0, 1, 2, 3, 4}, 20_000)
		put("objects/a.json.gz", content)
		p, err := s.List(ctx, listing.Request{Prefix: "objects/"})
		if err != nil || len(p.Entries) != 1 {
			t.Fatalf("%+v, %v", p, err)
		}
		e := p.Entries[0]
		if e.Size != int64(len(content)) || !strings.HasPrefix(e.ETag, `"`) || e.Archived ||
			time.Since(e.LastModified).Abs() > time.Minute || e.LastModified.Location() != time.UTC {
			t.Errorf("%+v", e)
		}
		b, err := s.Get(ctx, e.Key, e.ETag)
		if err != nil {
			t.Fatal(err)
		}
		if b.Size != e.Size || b.ETag != e.ETag {
			t.Errorf("a body of %d bytes, %s; listed were %d, %s", b.Size, b.ETag, e.Size, e.ETag)
		}
		if got := readAll(t, b); got != string(content) {
			t.Error("the body is not what is stored")
		}
		put(e.Key, []byte("another"))
		if _, err := s.Get(ctx, e.Key, e.ETag); fault.KindOf(err) != fault.Changed {
			t.Errorf("an object that was overwritten: %v", err)
		}
		if _, err := s.Get(ctx, "objects/none", ""); fault.KindOf(err) != fault.Gone {
			t.Errorf("an object that is not: %v", err)
		}
	})

	t.Run("bucket", func(t *testing.T) {
		info, err := s.Head(ctx)
		if err != nil || info.Region == "" {
			t.Errorf("%+v, %v", info, err)
		}
	})
}

func readAll(t *testing.T, b listing.Body) string {
	t.Helper()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	return string(got)
}

func TestConformance(t *testing.T) {
	for _, region := range []string{"eu-west-1", Auto} {
		t.Run(region, func(t *testing.T) {
			srv := server(t, s3test.Config{Region: "eu-west-1"})
			s := at(t, srv.URL(), func(c *Config) { c.Region = region })
			conformance(t, s, oddKeys(), func(key string, body []byte) { srv.Put(bucket, key, body) })
		})
	}
}

// A page that is full, and a million keys behind it.
func TestLongListing(t *testing.T) {
	srv := server(t, s3test.Config{})
	srv.PutAll(bucket, func(yield func(string) bool) {
		for i := range 2500 {
			if !yield(fmt.Sprintf("k%05d", i)) {
				return
			}
		}
	}, s3test.Object{Body: []byte("x")})
	s := at(t, srv.URL())
	var sizes []int
	r := listing.Request{Limit: 5000}
	for range 10 {
		p, err := s.List(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(p.Entries))
		if p.Last() {
			break
		}
		r.Token = p.Token
	}
	if d := cmp.Diff([]int{1000, 1000, 500}, sizes); d != "" {
		t.Error(d)
	}
}

// S3's time is the page's, whatever the local clock says.
func TestPageTime(t *testing.T) {
	clock := time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.FixedZone("", 3600))
	srv := server(t, s3test.Config{Now: func() time.Time { return clock }})
	p, err := at(t, srv.URL()).List(t.Context(), listing.Request{})
	if want := clock.UTC().Truncate(time.Second); err != nil || !p.At.Equal(want) || p.At.Location() != time.UTC {
		t.Errorf("%v, %v; want %v", p.At, err, want)
	}
}

// A server that does not know If-Match hands out another object: that is seen.
func TestIfMatchUnknown(t *testing.T) {
	srv := server(t, s3test.Config{})
	etag := srv.Put(bucket, "k", []byte("x"))
	url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-Match")
		srv.ServeHTTP(w, r)
	}))
	s := at(t, url)
	b, err := s.Get(t.Context(), "k", etag)
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, b)
	srv.Put(bucket, "k", []byte("y"))
	if _, err := s.Get(t.Context(), "k", etag); fault.KindOf(err) != fault.Changed {
		t.Error(err)
	}
}

func TestArchived(t *testing.T) {
	srv := server(t, s3test.Config{})
	for class, restored := range map[string]bool{"STANDARD": false, "GLACIER_IR": false, "GLACIER": false, "DEEP_ARCHIVE": false, "INTELLIGENT_TIERING": false} {
		srv.PutObject(bucket, class, s3test.Object{StorageClass: class, Restored: restored})
	}
	srv.PutObject(bucket, "THAWED", s3test.Object{StorageClass: "GLACIER", Restored: true})
	s := at(t, srv.URL())
	p, err := s.List(t.Context(), listing.Request{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, e := range p.Entries {
		got[e.Key] = e.Archived
	}
	want := map[string]bool{
		"STANDARD": false, "GLACIER_IR": false, "INTELLIGENT_TIERING": false, "THAWED": false,
		"GLACIER": true, "DEEP_ARCHIVE": true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := s.Get(t.Context(), "GLACIER", ""); fault.KindOf(err) != fault.Archived {
		t.Error(err)
	}
}

// What every request says, and what it does not.
func TestRequests(t *testing.T) {
	srv := server(t, s3test.Config{})
	srv.Put(bucket, "k", []byte("x"))
	var seen []http.Header
	front := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		srv.ServeHTTP(w, r)
	}))
	s := at(t, front, func(c *Config) { c.RequesterPays = true; c.BucketOwner = "111122223333" })
	if _, err := s.List(t.Context(), listing.Request{}); err != nil {
		t.Fatal(err)
	}
	b, err := s.Get(t.Context(), "k", "")
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, b)
	if len(seen) != 2 {
		t.Fatalf("%d requests", len(seen))
	}
	for _, h := range seen {
		for name, want := range map[string]string{
			"Accept-Encoding": "identity", "X-Amz-Request-Payer": "requester", "X-Amz-Expected-Bucket-Owner": "111122223333",
			"X-Amz-Checksum-Mode": "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !strings.Contains(h.Get("User-Agent"), "app/trailpoll") {
			t.Errorf("user agent %q", h.Get("User-Agent"))
		}
	}
}

func TestNew(t *testing.T) {
	static := Credentials{Type: Static, AccessKeyID: "a", SecretAccessKey: "b"}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // "" = fine
	}{
		{"least", Config{Bucket: "b"}, ""},
		{"old name", Config{Bucket: "b", Region: "EU_IRELAND"}, ""},
		{"new region", Config{Bucket: "b", Region: "eu-north-7"}, ""},
		{"any region elsewhere", Config{Bucket: "b", Region: "garage", Endpoint: "https://s3.example.com:9000/"}, ""},
		{"proxy", Config{Bucket: "b", Proxy: "http://u:p@proxy.example.com:3128"}, ""},
		{"no bucket", Config{}, "setting up s3://: no bucket is named"},
		{"directory bucket", Config{Bucket: "b--use1-az4--x-s3"}, "setting up s3://b--use1-az4--x-s3: a directory bucket is not listed in order"},
		{"no region", Config{Bucket: "b", Region: "zz-foo-1"}, `setting up s3://b: choosing an endpoint: "zz-foo-1" is not the name of an AWS region`},
		{"FIPS in China", Config{Bucket: "b", Region: "cn-north-1", FIPS: true}, "setting up s3://b: choosing the S3 endpoint of cn-north-1: partition aws-cn has no FIPS endpoints for S3"},
		{"FIPS elsewhere", Config{Bucket: "b", Endpoint: "https://h", FIPS: true}, "setting up s3://b: fips and dual_stack choose among AWS's endpoints, and another endpoint is set"},
		{"endpoint without scheme", Config{Bucket: "b", Endpoint: "h:9000"}, "setting up s3://b: the endpoint is not a URL with a host"},
		{"endpoint with path", Config{Bucket: "b", Endpoint: "https://h/x"}, "setting up s3://b: the endpoint has more than a host and a port"},
		{"endpoint with login", Config{Bucket: "b", Endpoint: "https://u:secret@h"}, "setting up s3://b: the endpoint has more than a host and a port"},
		{"bad proxy", Config{Bucket: "b", Proxy: "http://u:s ecret@h"}, "setting up s3://b: the proxy is not a URL of http, https or socks5 with a host"},
		{"half a key", Config{Bucket: "b", Credentials: Credentials{Type: Static, AccessKeyID: "a"}}, "setting up s3://b: static credentials lack a key"},
		{"unknown credentials", Config{Bucket: "b", Credentials: Credentials{Type: "magic"}}, `setting up s3://b: there are no credentials of type "magic"`},
		{"static", Config{Bucket: "b", Credentials: static}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.cfg)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || err.Error() != tt.want || fault.KindOf(err) != fault.Misconfigured || fault.HintOf(err) == "" {
				t.Errorf("%v (%v, hint %q), want %s", err, fault.KindOf(err), fault.HintOf(err), tt.want)
			}
		})
	}
}

func TestInvariant10_CredentialsPrintNothingSecret(t *testing.T) {
	cfg := Config{Bucket: "b", Credentials: Credentials{Type: Static, AccessKeyID: "AKID", SecretAccessKey: "secret1", SessionToken: "secret2"}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, cfg) + fmt.Sprintf(format, cfg.Credentials); strings.Contains(got, "secret") {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{"": "", "a": "a", "a+b": "a b", "a%2Bb%25": "a+b%", "a%20b/c": "a b/c", "%E6%97%A5": "日"} {
		if got, err := unescape(&in); got != want || err != nil {
			t.Errorf("%q is %q, %v; want %q", in, got, err, want)
		}
	}
	bad := "a%zz"
	if _, err := unescape(&bad); err == nil {
		t.Error("decoded what can't be")
	}
}

// What is encoded comes back, and nothing is decoded that can't be.
func FuzzUnescape(f *testing.F) {
	for _, k := range oddKeys() {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		encoded := strings.ReplaceAll(url.QueryEscape(key), "%2F", "/")
		if got, err := unescape(&encoded); got != key || err != nil {
			t.Errorf("%q came back as %q, %v", key, got, err)
		}
		_, _ = unescape(&key)
	})
}

// A listing that lies is an error and never an empty page: an empty page would
// be a hole in what is delivered.
func TestInvariant4_NoListingIsNoPage(t *testing.T) {
	truncated := true
	name := "b"
	for what, out := range map[string]*s3.ListObjectsV2Output{
		"nothing":          {},
		"no end":           {Name: &name},
		"no token":         {Name: &name, IsTruncated: &truncated},
		"undecodable keys": {Name: &name, IsTruncated: aws.Bool(false), EncodingType: "url", Contents: contents("%zz")},
		"not in order":     {Name: &name, IsTruncated: aws.Bool(false), Contents: contents("b", "a")},
	} {
		page, err := pageOf(out)
		if err == nil || len(page.Entries) > 0 {
			t.Errorf("%s: %+v, %v", what, page, err)
		}
		var f *fault.Error
		if !errors.As(err, &f) || f.Hint == "" {
			t.Errorf("%s: %v without a hint", what, err)
		}
	}
}

// A key that the server can't spell is passed over, and puts nothing out of
// order.
func TestMisspeltKeys(t *testing.T) {
	out := &s3.ListObjectsV2Output{
		Name: aws.String("b"), IsTruncated: aws.Bool(false), Contents: contents("a", "a\ufffd", "a b"),
		CommonPrefixes: []types.CommonPrefix{{Prefix: aws.String("c\ufffd/")}, {Prefix: aws.String("d/")}},
	}
	page, err := pageOf(out)
	if err != nil || len(page.Entries) != 2 || page.Entries[1].Key != "a b" || !slices.Equal(page.Prefixes, []string{"d/"}) {
		t.Errorf("%+v, %v", page, err)
	}
	out.EncodingType, out.Contents = "url", contents("a", "a%EF%BF%BD")
	if page, err := pageOf(out); err != nil || len(page.Entries) != 2 || page.Entries[1].Key != "a\ufffd" {
		t.Errorf("%+v, %v", page, err)
	}
}

func contents(keys ...string) []types.Object {
	var out []types.Object
	for _, k := range keys {
		out = append(out, types.Object{Key: &k})
	}
	return out
}

// listenHandler serves a handler on the loopback address and returns its URL.
func listenHandler(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// A full page of CloudTrail's keys, and an object of 30 kB, by way of the SDK
// and a server in this process.
func BenchmarkSource(b *testing.B) {
	srv, err := s3test.Start(s3test.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	srv.PutAll(bucket, func(yield func(string) bool) {
		for i := range 1000 {
			if !yield(fmt.Sprintf("AWSLogs/111122223333/CloudTrail/eu-west-1/2026/11/20/111122223333_CloudTrail_eu-west-1_20261120T%04dZ_abcdefghijklmnop.json.gz", i)) {
				return
			}
		}
	}, s3test.Object{Body: make([]byte, 30_000)})
	s, err := New(Config{
		Bucket: bucket, Region: "eu-west-1", Endpoint: srv.URL(), PathStyle: true,
		Credentials: Credentials{Type: Static, AccessKeyID: testKey, SecretAccessKey: testSecret},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	page, err := s.List(b.Context(), listing.Request{})
	if err != nil || len(page.Entries) != 1000 {
		b.Fatal(err)
	}
	b.Run("List", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.List(b.Context(), listing.Request{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			body, err := s.Get(b.Context(), page.Entries[0].Key, page.Entries[0].ETag)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, body); err != nil {
				b.Fatal(err)
			}
			_ = body.Close()
		}
	})
}
