package agent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/listing"
)

// undated is a bucket that does not say what time it is.
type undated struct{ *agenttest.Bucket }

func (u undated) List(ctx context.Context, r listing.Request) (listing.Page, error) {
	p, err := u.Bucket.List(ctx, r)
	p.At = time.Time{}
	return p, err
}

// A server without a Date: the local clock stands in, and late objects are
// found all the same.
func TestInvariant3_NoDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) { c.Sources[0].Store = undated{w.bucket} }
		began := time.Now()
		w.put(stream(1), time.Now(), 3)
		w.during(func() {
			time.Sleep(30 * time.Hour)
			w.put(stream(1), time.Now().Add(-20*day), 2)
			w.put(stream(1), time.Now().Add(-5*time.Hour), 2)
			time.Sleep(30 * time.Hour)
		})
		w.complete("siem", 0)
		heads, err := w.memory.Heads(agent.SourceID(bucketName, ""), "siem")
		if err != nil {
			t.Fatal(err)
		}
		// Each day's sweep has completed, by the clock that there is.
		if h := heads[stream(1)]; h.Daily.Sub(began) < 47*time.Hour || h.Hourly.Sub(began) < 58*time.Hour {
			t.Errorf("after 60 hours the last sweeps are of %v and %v", h.Hourly, h.Daily)
		}
	})
}
