package s3source

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
)

// calls makes each call of a source by name.
func calls(ctx context.Context, s *Source, op string) error {
	switch op {
	case "list":
		_, err := s.List(ctx, listing.Request{Prefix: "AWSLogs/"})
		return err
	case "get":
		b, err := s.Get(ctx, "AWSLogs/k", `"etag"`)
		if err == nil {
			_ = b.Close()
		}
		return err
	default:
		_, err := s.Head(ctx)
		return err
	}
}

func xmlError(status int, code, message string) s3test.Fault {
	return s3test.Fault{Kind: s3test.Answer, Status: status, Code: code, Message: message}
}

func with(f s3test.Fault, name, value string) s3test.Fault {
	f.Header = map[string]string{name: value}
	return f
}

// Every error that S3 answers, and what it means.
func TestAnswers(t *testing.T) {
	const kms = "User: arn:aws:iam::111122223333:user/t is not authorized to perform: kms:Decrypt on resource: " +
		"arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab because no identity-based policy allows it"
	html := s3test.Fault{Kind: s3test.Raw, Body: "<html><head><title>Sign in</title></head><body></body></html>",
		Header: map[string]string{"Content-Type": "text/html", "X-Amz-Request-Id": ""}}
	htmlWith := func(status int) s3test.Fault { f := html; f.Status = status; return f }

	for _, tt := range []struct {
		ops   string
		fault s3test.Fault
		kind  fault.Kind
		text  string // in the error
		hint  string // in the hint; "" = there is none
		tries int    // how often it is asked for; 0 = once
	}{
		{ops: "list", fault: xmlError(403, "AccessDenied", "User: u is not authorized to perform: s3:ListBucket"), kind: fault.Denied,
			text: "listing s3://acme-cloudtrail-logs/AWSLogs/: AccessDenied: User: u is not authorized to perform: s3:ListBucket (HTTP 403, request ",
			hint: "grant s3:ListBucket on arn:aws:s3:::acme-cloudtrail-logs in"},
		{ops: "get", fault: xmlError(403, "AccessDenied", "Access Denied"), kind: fault.Denied,
			text: "getting s3://acme-cloudtrail-logs/AWSLogs/k: AccessDenied: Access Denied (HTTP 403", hint: "grant s3:GetObject on arn:aws:s3:::acme-cloudtrail-logs/*, and kms:Decrypt"},
		{ops: "head", fault: xmlError(403, "", ""), kind: fault.Denied, text: "asking for s3://acme-cloudtrail-logs: Forbidden", hint: "s3:ListBucket"},
		{ops: "get", fault: xmlError(403, "AccessDenied", kms), kind: fault.KMSDenied, text: "kms:Decrypt", hint: "grant kms:Decrypt on arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab in"},
		{ops: "get", fault: xmlError(403, "AccessDenied", "not authorized to perform: kms:Decrypt"), kind: fault.KMSDenied, hint: "kms:Decrypt on the KMS key"},
		{ops: "get", fault: xmlError(400, "KMS.DisabledException", "arn:aws:kms:eu-west-1:111122223333:key/k is disabled."), kind: fault.KMSDenied, hint: "look after arn:aws:kms:eu-west-1:111122223333:key/k"},
		{ops: "get", fault: xmlError(400, "KMS.NotFoundException", "no key"), kind: fault.KMSDenied, hint: "look after the KMS key"},
		{ops: "get", fault: xmlError(404, "NoSuchKey", "gone"), kind: fault.Gone},
		{ops: "list get", fault: xmlError(404, "NoSuchBucket", "none"), kind: fault.NoBucket, hint: "check bucket"},
		{ops: "head", fault: xmlError(404, "", ""), kind: fault.NoBucket, hint: "check bucket"},
		{ops: "list", fault: xmlError(400, "InvalidBucketName", "no"), kind: fault.Misconfigured, hint: "check bucket"},
		{ops: "get", fault: xmlError(412, "PreconditionFailed", "no"), kind: fault.Changed},
		{ops: "get", fault: xmlError(403, "InvalidObjectState", "no"), kind: fault.Archived, hint: "restore it"},

		{ops: "list get", fault: xmlError(503, "SlowDown", "slow"), kind: fault.Throttled, tries: 3},
		{ops: "head", fault: xmlError(503, "", ""), kind: fault.Throttled, tries: 3},
		{ops: "list", fault: htmlWith(503), kind: fault.Throttled, tries: 3},
		{ops: "list get", fault: xmlError(429, "TooManyRequests", "slow"), kind: fault.Throttled},
		{ops: "list", fault: xmlError(400, "RequestLimitExceeded", "slow"), kind: fault.Throttled, tries: 3},
		{ops: "list get", fault: xmlError(500, "InternalError", "We encountered an internal error."), kind: fault.Temporary, tries: 3},
		{ops: "list", fault: xmlError(0, "InternalError", "in a good answer"), kind: fault.Temporary, text: "InternalError: in a good answer", tries: 3},
		{ops: "list", fault: xmlError(0, "SlowDown", "in a good answer"), kind: fault.Throttled, tries: 3},
		{ops: "list get", fault: xmlError(400, "RequestTimeout", "slow"), kind: fault.Temporary, tries: 3},
		{ops: "list", fault: xmlError(501, "NotImplemented", "no"), kind: fault.Temporary},
		{ops: "list", fault: xmlError(400, "InvalidArgument", "The continuation token provided is incorrect"), kind: fault.Temporary},

		{ops: "list get", fault: xmlError(400, "ExpiredToken", "The provided token has expired."), kind: fault.BadCredentials, hint: "expired"},
		{ops: "list get", fault: xmlError(403, "InvalidAccessKeyId", "no"), kind: fault.BadCredentials, hint: "does not know the access key"},
		{ops: "list get", fault: xmlError(403, "SignatureDoesNotMatch", "no"), kind: fault.BadCredentials, hint: "secret access key"},
		{ops: "list get", fault: xmlError(403, "RequestTimeTooSkewed", "no"), kind: fault.BadCredentials, hint: "clock"},
		{ops: "list", fault: xmlError(400, "TokenRefreshRequired", "no"), kind: fault.BadCredentials, hint: "expired"},
		{ops: "list", fault: xmlError(400, "InvalidToken", "no"), kind: fault.BadCredentials, hint: "credentials"},
		{ops: "list", fault: xmlError(400, "AuthorizationHeaderMalformed", "a non-empty Access Key must be provided"), kind: fault.BadCredentials, hint: "access_key_id"},
		{ops: "head", fault: xmlError(400, "", ""), kind: fault.BadCredentials, hint: "no reason"},

		{ops: "list get", fault: html, kind: fault.Temporary, hint: "captive portal"},
		{ops: "list", fault: s3test.Fault{Kind: s3test.Raw, Body: "<html><br></html>"}, kind: fault.Temporary, hint: "captive portal"},
		{ops: "list", fault: s3test.Fault{Kind: s3test.Raw, Body: ""}, kind: fault.Temporary, hint: "captive portal"},
		{ops: "list", fault: s3test.Fault{Kind: s3test.Raw, Body: "no XML at all"}, kind: fault.Temporary, hint: "captive portal"},
		{ops: "list", fault: s3test.Fault{Kind: s3test.Raw, Body: `<ListBucketResult><Name>b</Name>`}, kind: fault.Temporary, hint: "captive portal"},
		{ops: "list get", fault: htmlWith(302), kind: fault.Temporary, hint: "captive portal"},
		{ops: "list get", fault: htmlWith(403), kind: fault.Temporary, hint: "captive portal"},
		{ops: "get", fault: htmlWith(404), kind: fault.Temporary, hint: "captive portal"},
		{ops: "list get", fault: htmlWith(407), kind: fault.Unreachable, hint: "login"},
		{ops: "list get", fault: htmlWith(502), kind: fault.Temporary, tries: 3},
		{ops: "list get", fault: s3test.Fault{Kind: s3test.ResetBefore}, kind: fault.Temporary, tries: -1},
		{ops: "list", fault: s3test.Fault{Kind: s3test.Cut, N: 100}, kind: fault.Temporary, text: "unexpected EOF"},
		{ops: "list", fault: s3test.Fault{Kind: s3test.Short, N: 100}, kind: fault.Temporary, hint: "captive portal"},
	} {
		for op := range strings.FieldsSeq(tt.ops) {
			t.Run(op+" "+tt.fault.Code+" "+tt.kind.String(), func(t *testing.T) {
				t.Parallel()
				srv := server(t, s3test.Config{})
				srv.Put(bucket, "AWSLogs/k", []byte("x"))
				srv.Inject(func(string, string, string, int) s3test.Fault { return tt.fault })
				err := calls(t.Context(), at(t, srv.URL()), op)
				f, ok := errors.AsType[*fault.Error](err)
				if !ok {
					t.Fatalf("not a fault: %v", err)
				}
				if f.Kind != tt.kind || !strings.Contains(f.Error(), tt.text) {
					t.Errorf("%v: %v; want %v with %q", f.Kind, f, tt.kind, tt.text)
				}
				if !strings.Contains(f.Hint, tt.hint) || (f.Hint == "") != (tt.hint == "") {
					t.Errorf("hint %q of %v, want %q", f.Hint, f, tt.hint)
				}
				if isContext(err) {
					t.Errorf("%v would be taken for the end of the agent", err)
				}
				name := map[string]string{"list": s3test.ListObjectsV2, "get": s3test.GetObject, "head": s3test.HeadBucket}[op]
				if n := srv.Count(name); tt.tries >= 0 && n != max(1, tt.tries) {
					t.Errorf("asked %d times, want %d", n, max(1, tt.tries))
				}
			})
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": 0,
		"Fri, 20 Nov 2026 12:01:30 GMT": 90 * time.Second, "Fri, 20 Nov 2026 11:00:00 GMT": 0,
	} {
		srv := server(t, s3test.Config{Now: func() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }})
		srv.Inject(func(string, string, string, int) s3test.Fault {
			return with(xmlError(503, "SlowDown", "slow"), "Retry-After", value)
		})
		err := calls(t.Context(), at(t, srv.URL()), "list")
		if got := fault.RetryAfterOf(err); got != want || fault.KindOf(err) != fault.Throttled {
			t.Errorf("Retry-After %q: %v, want %v (%v)", value, got, want, err)
		}
	}
}

// One bad hour leaves retries to the good one after it: no bucket of retry
// tokens runs dry.
func TestRetriesNeverRunDry(t *testing.T) {
	srv := server(t, s3test.Config{})
	srv.Inject(func(op, _, _ string, _ int) s3test.Fault { return xmlError(500, "InternalError", "") })
	s := at(t, srv.URL())
	const workers, each = 50, 4
	const failures = workers * each
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.Temporary {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := srv.Count(s3test.ListObjectsV2); n != failures*attempts {
		t.Errorf("%d requests, want %d", n, failures*attempts)
	}
	srv.ResetCounts()
	srv.Inject(func(_, _, _ string, n int) s3test.Fault {
		if n < attempts {
			return xmlError(500, "InternalError", "")
		}
		return s3test.Fault{}
	})
	if err := calls(t.Context(), s, "list"); err != nil {
		t.Error(err)
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	_ = l.Close()
	plain := server(t, s3test.Config{}).URL()

	for _, tt := range []struct {
		name   string
		change func(*Config)
		hint   string
	}{
		{"refused", func(c *Config) { c.Endpoint = closed }, "firewall"},
		{"no DNS", func(c *Config) { c.Endpoint = "http://s3.invalid" }, `DNS answer for "s3.invalid"`},
		{"no DNS for buckets", func(c *Config) { c.Endpoint, c.PathStyle = "http://s3.invalid", false }, "path_style = true"},
		{"no TLS there", func(c *Config) { c.Endpoint = strings.Replace(plain, "http:", "https:", 1) }, "ca_file"},
		{"no proxy there", func(c *Config) { c.Endpoint, c.Proxy = "https://s3.invalid", closed }, "check proxy"},
	} {
		for _, op := range []string{"list", "get", "head"} {
			t.Run(tt.name+" "+op, func(t *testing.T) {
				t.Parallel()
				err := calls(t.Context(), at(t, "", tt.change), op)
				if fault.KindOf(err) != fault.Unreachable || !strings.Contains(fault.HintOf(err), tt.hint) {
					t.Errorf("%v: %v; hint %q", fault.KindOf(err), err, fault.HintOf(err))
				}
				if strings.Contains(err.Error(), "list-type") || strings.Contains(err.Error(), "?") {
					t.Errorf("the query is in %v", err)
				}
			})
		}
	}
}

func TestContextEnds(t *testing.T) {
	srv := server(t, s3test.Config{})
	arrived := make(chan struct{}, 1)
	srv.Inject(func(string, string, string, int) s3test.Fault {
		arrived <- struct{}{}
		return s3test.Fault{Delay: time.Hour}
	})
	s := at(t, srv.URL())
	for _, op := range []string{"list", "get", "head"} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		err := calls(ctx, s, op)
		if _, ok := errors.AsType[*fault.Error](err); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", op, err)
		}
		ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		if err := calls(ctx, s, op); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", op, err)
		}
		cancel()
	}
}

// Waiting for a retry ends with the context, too.
func TestContextEndsRetries(t *testing.T) {
	srv := server(t, s3test.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	srv.Inject(func(string, string, string, int) s3test.Fault {
		cancel()
		return xmlError(500, "InternalError", "")
	})
	if err := calls(ctx, at(t, srv.URL()), "list"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := srv.Count(s3test.ListObjectsV2); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestInvariant10_ErrorsHoldNoSecret(t *testing.T) {
	srv := server(t, s3test.Config{})
	srv.Inject(func(string, string, string, int) s3test.Fault {
		return xmlError(403, "SignatureDoesNotMatch", "signed with "+testSecret+" and the-token")
	})
	s := at(t, srv.URL(), func(c *Config) { c.Credentials.SessionToken = "the-token" })
	for _, op := range []string{"list", "get"} {
		err := calls(t.Context(), s, op)
		if err == nil || strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), "the-token") {
			t.Errorf("%v", err)
		}
	}
}

func TestInvariant11_ErrorsAreOneLine(t *testing.T) {
	srv := server(t, s3test.Config{})
	srv.Inject(func(string, string, string, int) s3test.Fault {
		return s3test.Fault{Kind: s3test.Raw, Status: 400, Body: "<Error><Code>Odd</Code><Message>a\nlevel=error b\u2028" + strings.Repeat("é", 5000) + "</Message></Error>"}
	})
	s := at(t, srv.URL())
	_, list := s.List(t.Context(), listing.Request{Prefix: "a\nlevel=error b"})
	_, get := s.Get(t.Context(), "a\nb\x00\x1b[31m", "")
	for _, err := range []error{list, get} {
		if err == nil || strings.ContainsAny(err.Error(), "\n\x00\x1b\u2028") || len(err.Error()) > 1000 {
			t.Errorf("%v", err)
		}
	}
}

// A status that no code explains.
func TestBareStatuses(t *testing.T) {
	for status, want := range map[int]fault.Kind{
		301: fault.Temporary, 304: fault.Temporary, 400: fault.Temporary, 403: fault.Temporary, 404: fault.Temporary, 418: fault.Temporary,
		429: fault.Throttled, 500: fault.Temporary, 503: fault.Throttled,
	} {
		url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		for _, op := range []string{"list", "get"} {
			if err := calls(t.Context(), at(t, url), op); err == nil || fault.KindOf(err) != want {
				t.Errorf("%s answered with %d: %v, want %v (%v)", op, status, fault.KindOf(err), want, err)
			}
		}
	}
}
