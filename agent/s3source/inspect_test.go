package s3source

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// What S3 says of an object, read from a GET of one byte; bucket_owner goes with
// every request, and so does who pays.
func TestInspect(t *testing.T) {
	var headers http.Header
	var status int
	body := "x"
	var asked []*http.Request
	url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r)
		for name, v := range headers {
			w.Header()[name] = v
		}
		w.Header().Set("Etag", `"e"`)
		if r.Header.Get("Range") == "" {
			w.WriteHeader(200)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	s := at(t, url, func(c *Config) { c.RequesterPays = true; c.BucketOwner = "111122223333" })
	modified := time.Date(2026, 11, 20, 10, 11, 12, 0, time.UTC)
	headers = http.Header{
		"Content-Range": {"bytes 0-0/4711"}, "Last-Modified": {modified.Format(http.TimeFormat)}, "Content-Type": {"application/json"},
		"Content-Encoding": {"gzip"}, "X-Amz-Server-Side-Encryption": {"aws:kms"},
		"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id":     {"arn:aws:kms:eu-west-1:111122223333:key/k"},
		"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": {"true"}, "X-Amz-Storage-Class": {"GLACIER_IR"}, "X-Amz-Request-Charged": {"requester"},
	}
	status = http.StatusPartialContent
	got, err := s.Inspect(t.Context(), "k")
	want := ObjectFacts{
		Size: 4711, ETag: `"e"`, LastModified: modified, ContentType: "application/json", Encoding: "gzip", Encryption: "aws:kms",
		KMSKey: "arn:aws:kms:eu-west-1:111122223333:key/k", BucketKey: true, StorageClass: "GLACIER_IR", RequesterPays: true,
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}

	// An empty object has no first byte.
	headers, status = http.Header{}, http.StatusRequestedRangeNotSatisfiable
	body = "<Error><Code>InvalidRange</Code></Error>"
	if got, err = s.Inspect(t.Context(), "k"); err != nil || got.Size != 0 || got.StorageClass != "STANDARD" {
		t.Errorf("%+v, %v", got, err)
	}

	if _, err := s.Head(t.Context()); err != nil {
		t.Error(err)
	}
	for _, r := range asked {
		if r.Header.Get("X-Amz-Expected-Bucket-Owner") != "111122223333" {
			t.Errorf("%s %s: no bucket owner", r.Method, r.URL)
		}
		if r.Method == http.MethodGet && r.Header.Get("X-Amz-Request-Payer") != "requester" {
			t.Errorf("%s %s: nobody pays", r.Method, r.URL)
		}
	}
	if len(asked) != 4 {
		t.Errorf("%d requests", len(asked))
	}
}

// A GET is given the reason that a HEAD is not.
func TestInspectIsRefused(t *testing.T) {
	for code, tt := range map[string]struct {
		fault s3test.Fault
		kind  fault.Kind
		hint  string
	}{
		"policy": {xmlError(403, "AccessDenied", "Access Denied"), fault.Denied, "grant s3:GetObject"},
		"key":    {xmlError(403, "AccessDenied", "not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k"), fault.KMSDenied, "grant kms:Decrypt on arn:aws:kms"},
		"gone":   {xmlError(404, "NoSuchKey", "no"), fault.Gone, ""},
		"class":  {xmlError(403, "InvalidObjectState", "no"), fault.Archived, "restore"},
	} {
		srv := server(t, s3test.Config{})
		srv.Inject(func(string, string, string, int) s3test.Fault { return tt.fault })
		_, err := at(t, srv.URL()).Inspect(t.Context(), "AWSLogs/k")
		if fault.KindOf(err) != tt.kind || !strings.Contains(fault.HintOf(err), tt.hint) || !strings.HasPrefix(err.Error(), "looking at s3://acme-cloudtrail-logs/AWSLogs/k: ") {
			t.Errorf("%s: %v: %v, hint %q", code, fault.KindOf(err), err, fault.HintOf(err))
		}
	}
}

// S3 names region and time also to those whom it refuses.
func TestHeadSaysWhatItKnows(t *testing.T) {
	at0 := time.Date(2026, 11, 20, 10, 11, 12, 0, time.UTC)
	srv := server(t, s3test.Config{Region: "us-gov-west-1", Now: func() time.Time { return at0 }})
	srv.Inject(func(string, string, string, int) s3test.Fault { return xmlError(403, "", "") })
	s := at(t, srv.URL(), func(c *Config) { c.Region = "us-gov-west-1" })
	info, err := s.Head(t.Context())
	want := BucketInfo{Region: "us-gov-west-1", Partition: "aws-us-gov", Status: 403, At: at0}
	if fault.KindOf(err) != fault.Denied || info != want {
		t.Errorf("%+v, %v", info, err)
	}
	srv.Inject(nil)
	want.Status = 200
	if info, err := s.Head(t.Context()); err != nil || info != want {
		t.Errorf("%+v, %v", info, err)
	}
}
