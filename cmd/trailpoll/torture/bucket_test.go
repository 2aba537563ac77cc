//go:build linux

package torture

import (
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

// S3 and the receiver have addresses of their own: calls come from 127.0.0.1, and
// could take the port of one that is down.
const (
	s3Host  = "127.0.0.2"
	webHost = "127.0.0.3"
)

const (
	bucketName = "torture"
	homeRegion = "eu-central-1"
)

// What S3 may do.
const (
	s3Error       = "500"
	s3SlowDown    = "503 SlowDown"
	s3Denied      = "403"
	s3Missing     = "404 on a listed key"
	s3Cut         = "body cut"
	s3Short       = "wrong length"
	s3Stall       = "stalled"
	s3ResetBefore = "reset before the answer"
	s3ResetAfter  = "reset in the body"
	s3Flip        = "bit flipped"
	s3Inside      = "200 with an error inside"
	s3Page        = "listing ends early or repeats"
	s3Foreign     = "no S3 answers"
	s3Slow        = "latency"
	s3Down        = outDown
	// These are drawn apart.
	s3Vanished = outVanished
	s3Ahead    = "its clock 20 min ahead"
	s3Behind   = "its clock 20 min behind"
	s3DaysOn   = "its clock 2 days ahead"
	s3DaysBack = "its clock 2 days behind"
)

// steps are how far S3's clock goes wrong. S3's is the one that the agent goes
// by, so it is the one that is stepped: the local clock of one process can't be.
var steps = map[string]time.Duration{
	s3Ahead: 20 * time.Minute, s3Behind: -20 * time.Minute, s3DaysOn: 48 * time.Hour, s3DaysBack: -48 * time.Hour,
}

var s3Kinds = []string{
	s3Error, s3SlowDown, s3Denied, s3Missing, s3Cut, s3Short, s3Stall, s3ResetBefore,
	s3ResetAfter, s3Flip, s3Inside, s3Page, s3Foreign, s3Slow, s3Down,
}

// bucket is an S3 with one bucket that can go away and come back.
type bucket struct {
	store   *s3test.Server
	weather *weather
	addr    string

	step  atomic.Int64 // of its clock, nanoseconds
	brief bool         // no connection is kept, so that each request looks up the name

	mu     sync.Mutex
	server *http.Server
	wire   *wire
}

func newBucket(w *weather, brief bool) (*bucket, error) {
	b := &bucket{weather: w, addr: s3Host + ":0", brief: brief}
	b.store = s3test.New(s3test.Config{
		AccessKey: accessKey, Region: homeRegion,
		Now: func() time.Time { return time.Now().Add(time.Duration(b.step.Load())) },
	})
	b.store.CreateBucket(bucketName)
	b.store.Inject(b.fault)
	return b, b.up()
}

// url is where it is, by a name or ("") by its address.
func (b *bucket) url(name string) string { return "http://" + named(name, b.addr) }

// named is an address with a name for its host, if there is one.
func named(name, addr string) string {
	if name == "" {
		return addr
	}
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(name, port)
}

// up begins to listen, where it listened before.
func (b *bucket) up() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", b.addr)
	if err != nil {
		return fmt.Errorf("opening the port of S3: %w", err)
	}
	b.addr = ln.Addr().String()
	srv := &http.Server{Handler: b.store, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	srv.SetKeepAlivesEnabled(!b.brief)
	b.server, b.wire = srv, newWire(ln, b.weather.notice)
	wire := b.wire
	go func() { _ = srv.Serve(wire) }()
	return nil
}

// change makes S3 another for a while, or the right one again ("").
func (b *bucket) change(kind string) error {
	b.step.Store(int64(steps[kind]))
	switch kind {
	case "":
		b.mu.Lock()
		gone := b.wire != nil && b.wire.vanished()
		b.mu.Unlock()
		if gone {
			b.down()
		}
		return b.up()
	case s3Down:
		b.down()
	case s3Vanished:
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.server != nil {
			b.wire.vanish()
		}
	}
	return nil
}

// cut breaks all connections; new ones are taken.
func (b *bucket) cut() error {
	b.mu.Lock()
	there := b.server != nil && !b.wire.vanished()
	b.mu.Unlock()
	if !there {
		return nil
	}
	b.down()
	return b.up()
}

// down breaks all connections; new ones are refused.
func (b *bucket) down() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		_ = b.server.Close()
		b.server = nil
	}
}

func (b *bucket) close() {
	b.down()
	_ = b.store.Close()
}

// fault is what goes wrong with one request.
func (b *bucket) fault(op, _, _ string, _ int) s3test.Fault {
	if b.step.Load() != 0 {
		b.weather.notice()
	}
	kind, rng := b.weather.now()
	f, ok := faultOf(kind, op, rng)
	if ok {
		b.weather.hit(kind)
	}
	return f
}

func faultOf(kind, op string, rng *rand.Rand) (f s3test.Fault, ok bool) {
	get := op == s3test.GetObject
	// Whether a cut is at the beginning or further on; past the end it is at the end.
	n := []int64{0, 1, 100, 1000, 10_000}[rng.IntN(5)]
	switch kind {
	case s3Error:
		return s3test.Fault{Kind: s3test.Answer, Status: 500, Code: "InternalError", Message: "We encountered an internal error. Please try again."}, true
	case s3SlowDown:
		return s3test.Fault{Kind: s3test.Answer, Status: 503, Code: "SlowDown", Message: "Please reduce your request rate."}, true
	case s3Denied:
		return s3test.Fault{Kind: s3test.Answer, Status: 403, Code: "AccessDenied", Message: "Access Denied"}, true
	case s3Missing:
		return s3test.Fault{Kind: s3test.Answer, Status: 404, Code: "NoSuchKey", Message: "The specified key does not exist."}, get
	case s3Cut:
		return s3test.Fault{Kind: s3test.Cut, N: n}, true
	case s3Short:
		return s3test.Fault{Kind: s3test.Short, N: n}, get
	case s3Stall:
		return s3test.Fault{Kind: s3test.Stall, N: n}, true
	case s3ResetBefore:
		return s3test.Fault{Kind: s3test.ResetBefore}, true
	case s3ResetAfter:
		return s3test.Fault{Kind: s3test.ResetAfter, N: n}, true
	case s3Flip:
		return s3test.Fault{Kind: s3test.Flip, N: rng.Int64N(4000)}, get
	case s3Inside:
		return s3test.Fault{Kind: s3test.Answer, Code: "InternalError", Message: "We encountered an internal error. Please try again."}, true
	case s3Page:
		if rng.IntN(3) == 0 {
			return s3test.Fault{Kind: s3test.Repeat}, op == s3test.ListObjectsV2
		}
		return s3test.Fault{Kind: s3test.EndEarly, N: 1 + rng.Int64N(20)}, op == s3test.ListObjectsV2
	case s3Foreign:
		return s3test.Fault{Kind: s3test.Raw, Header: map[string]string{"Content-Type": "text/html"}, Body: "<!doctype html><title>Sign in</title>"}, true
	case s3Slow:
		return s3test.Fault{Delay: time.Duration(rng.Int64N(int64(2 * time.Second)))}, true
	}
	return s3test.Fault{}, false
}
