package s3source

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
)

func auto(c *Config) { c.Region = Auto }

// signedFor returns the region that a request is signed for.
func signedFor(r *http.Request) string {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	if parts := strings.Split(scope, "/"); len(parts) > 2 {
		return parts[2]
	}
	return ""
}

// S3's ways of saying where a bucket is, to HEAD and to the call itself.
func TestRegionIsFound(t *testing.T) {
	elsewhere := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
			w.Header().Set("X-Amz-Request-Id", "R")
			w.WriteHeader(status)
			if r.Method != http.MethodHead {
				_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", code)
			}
		}
	}
	for name, wrong := range map[string]http.HandlerFunc{
		"301":                   elsewhere(301, "PermanentRedirect"),
		"307":                   elsewhere(307, "TemporaryRedirect"),
		"400":                   elsewhere(400, "AuthorizationHeaderMalformed"),
		"403":                   elsewhere(403, "AccessDenied"),
		"200, but another name": elsewhere(200, ""),
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(t, s3test.Config{Region: "eu-west-1"})
			srv.Put(bucket, "k", []byte("x"))
			var asked []string
			url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.Method+" "+signedFor(r))
				if signedFor(r) != "eu-west-1" {
					wrong(w, r)
					return
				}
				srv.ServeHTTP(w, r)
			}))
			s := at(t, url, auto)
			for range 2 {
				p, err := s.List(t.Context(), listing.Request{})
				if err != nil || len(p.Entries) != 1 {
					t.Fatalf("%+v, %v", p, err)
				}
			}
			if got, want := strings.Join(asked, ", "), "HEAD us-east-1, GET eu-west-1, GET eu-west-1"; got != want {
				t.Errorf("asked %s, want %s", got, want)
			}
			if info, err := s.Head(t.Context()); err != nil || info.Region != "eu-west-1" {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

// A bucket that is made anew elsewhere, or a server that tells HEAD nothing: the
// call's own answer is followed, once.
func TestRegionIsCorrected(t *testing.T) {
	for name, tell := range map[string]func(w http.ResponseWriter){
		"header":  func(w http.ResponseWriter) { w.Header().Set("X-Amz-Bucket-Region", "eu-west-1") },
		"message": func(http.ResponseWriter) {},
	} {
		t.Run(name, func(t *testing.T) {
			srv := server(t, s3test.Config{})
			srv.Put(bucket, "k", []byte("x"))
			var gets atomic.Int64
			url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					gets.Add(1)
					if got := signedFor(r); got != "eu-west-1" {
						tell(w)
						w.WriteHeader(400)
						_, _ = fmt.Fprintf(w, "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region '%s' is wrong; expecting 'eu-west-1'</Message></Error>", got)
						return
					}
				}
				srv.ServeHTTP(w, r)
			}))
			s := at(t, url, auto)
			for range 2 {
				if err := calls(t.Context(), s, "list"); err != nil {
					t.Fatal(err)
				}
			}
			if n := gets.Load(); n != 3 {
				t.Errorf("%d calls, want 3", n)
			}
		})
	}
}

// Two servers that point at each other end in an error.
func TestRegionGoesInCircles(t *testing.T) {
	var n atomic.Int64
	url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.Header().Set("X-Amz-Bucket-Region", map[string]string{"us-east-1": "eu-west-1", "eu-west-1": "us-east-1"}[signedFor(r)])
		w.WriteHeader(301)
		if r.Method != http.MethodHead {
			_, _ = fmt.Fprint(w, "<Error><Code>PermanentRedirect</Code></Error>")
		}
	}))
	err := calls(t.Context(), at(t, url, auto), "list")
	if fault.KindOf(err) != fault.WrongRegion || n.Load() != 3 {
		t.Errorf("%v after %d requests", err, n.Load())
	}
}

// A region that the config names is not changed behind its back.
func TestWrongRegion(t *testing.T) {
	srv := server(t, s3test.Config{Region: "ap-south-1"})
	s := at(t, srv.URL())
	for _, op := range []string{"list", "get", "head"} {
		err := calls(t.Context(), s, op)
		if fault.KindOf(err) != fault.WrongRegion || err.(*fault.Error).Region != "ap-south-1" ||
			fault.HintOf(err) != `set region = "ap-south-1", or "auto"` {
			t.Errorf("%s: %v: %v, hint %q", op, fault.KindOf(err), err, fault.HintOf(err))
		}
	}
}

// What names no region is taken for us-east-1, if it is not AWS.
func TestRegionUnknownElsewhere(t *testing.T) {
	srv := server(t, s3test.Config{})
	s := at(t, srv.URL(), auto)
	info, err := s.Head(t.Context())
	if err != nil || info.Region != firstRegion {
		t.Errorf("%+v, %v", info, err)
	}
	s = at(t, srv.URL(), auto, func(c *Config) { c.Bucket = "no-such-bucket" })
	if err := calls(t.Context(), s, "list"); fault.KindOf(err) != fault.NoBucket {
		t.Error(err)
	}
}

// All who come while the region is being found wait for one answer; a failure
// is theirs, too, and is not kept.
func TestRegionIsAskedForOnce(t *testing.T) {
	const callers = 20
	srv := server(t, s3test.Config{Region: "eu-west-1"})
	var down atomic.Bool
	release := make(chan struct{})
	var heads atomic.Int64
	url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			heads.Add(1)
			<-release
			if down.Load() {
				w.WriteHeader(500)
				return
			}
		}
		srv.ServeHTTP(w, r)
	}))
	s := at(t, url, auto)
	round := func() (failed int) {
		var wg sync.WaitGroup
		var bad atomic.Int64
		for range callers {
			wg.Go(func() {
				if calls(t.Context(), s, "list") != nil {
					bad.Add(1)
				}
			})
		}
		// All wait, but for the one that asks.
		for {
			s.mu.Lock()
			asking := s.asking != nil
			s.mu.Unlock()
			if asking {
				break
			}
		}
		close(release)
		wg.Wait()
		return int(bad.Load())
	}

	down.Store(true)
	if failed := round(); failed != callers {
		t.Errorf("%d of %d failed", failed, callers)
	}
	down.Store(false)
	heads.Store(0)
	release = make(chan struct{})
	if failed := round(); failed != 0 {
		t.Errorf("%d of %d failed", failed, callers)
	}
	if n := heads.Load(); n != 1 {
		t.Errorf("the region was asked for %d times", n)
	}
}

// Whoever waits for another's answer can give up, and outlives the other's
// giving up.
func TestRegionWaitersAndContexts(t *testing.T) {
	srv := server(t, s3test.Config{Region: "eu-west-1"})
	arrived := make(chan struct{}, 10)
	var held atomic.Bool
	held.Store(true)
	srv.Inject(func(op, _, _ string, _ int) s3test.Fault { return s3test.Fault{} })
	url := listenHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && held.Load() {
			arrived <- struct{}{}
			<-r.Context().Done()
			return
		}
		srv.ServeHTTP(w, r)
	}))
	s := at(t, url, auto)
	leading, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := calls(leading, s, "list"); !isContext(err) {
			t.Errorf("who asked: %v", err)
		}
	})
	<-arrived
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := calls(short, s, "list"); !isContext(err) {
		t.Errorf("who gave up waiting: %v", err)
	}
	wg.Go(func() {
		if err := calls(t.Context(), s, "list"); err != nil {
			t.Errorf("who went on: %v", err)
		}
	})
	held.Store(false)
	giveUp()
	wg.Wait()
}

// At AWS a bucket of another partition can't be reached with FIPS where there
// is none.
func TestRegionWithoutFIPS(t *testing.T) {
	s, err := New(Config{Bucket: "b", FIPS: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.move(call{op: opList, bucket: "b"}, "cn-north-1")
	if fault.KindOf(err) != fault.Misconfigured || !strings.Contains(err.Error(), "no FIPS endpoints") {
		t.Error(err)
	}
}
