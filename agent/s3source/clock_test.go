package s3source

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/listing"
)

// S3 refuses what is signed 15 minutes off. The SDK signs by the clock that the
// refusal's Date shows, and our own retries must leave that to it: whatever the
// local clock does, each call comes through, also those right after a step.
func TestSignedByS3sClock(t *testing.T) {
	for _, region := range []string{"eu-west-1", Auto} {
		t.Run(region, func(t *testing.T) {
			var off atomic.Int64 // of S3's clock: the local one can't be stepped here
			srv := server(t, s3test.Config{
				Region: "eu-west-1", MaxSkew: 15 * time.Minute,
				Now: func() time.Time { return time.Now().Add(time.Duration(off.Load())) },
			})
			srv.Put(bucket, "k", []byte("body"))
			var s *Source
			for _, step := range []time.Duration{
				-72 * time.Hour, 0, 16 * time.Minute, -16 * time.Minute, 10 * time.Minute, 240 * time.Hour, -10 * time.Minute, 0,
			} {
				off.Store(int64(step))
				if s == nil { // the first call of all meets a clock that is wrong
					s = at(t, srv.URL(), func(c *Config) { c.Region = region })
				}
				page, err := s.List(t.Context(), listing.Request{})
				if err != nil {
					t.Fatalf("listing, S3 %v ahead: %v", step, err)
				}
				if d := page.At.Sub(time.Now().Add(step)).Abs(); d > time.Minute {
					t.Errorf("S3 %v ahead: the page is of %v", step, page.At)
				}
				off.Store(int64(-step)) // and the next call another
				b, err := s.Get(t.Context(), "k", "")
				if err != nil {
					t.Fatalf("getting, S3 %v ahead: %v", -step, err)
				}
				if got := readAll(t, b); got != "body" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}
