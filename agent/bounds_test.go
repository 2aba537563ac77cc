package agent_test

import (
	"bytes"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
)

var waitingRE = regexp.MustCompile(`"waiting":(\d+)`)

func mostWaiting(log string) (most int) {
	for _, m := range waitingRE.FindAllStringSubmatch(log, -1) {
		n, _ := strconv.Atoi(m[1])
		most = max(most, n)
	}
	return most
}

// More comes than a slow output takes, for hours: what waits stays bounded.
func TestInvariant8_OverloadOfTheLastHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		w.log = &log
		w.outputs["siem"].Latency = time.Second
		w.tune = func(c *agent.Config) {
			c.Outputs[0].BatchRecords, c.Outputs[0].Connections = 1, 1
		}
		w.during(func() {
			for range 3 * 60 {
				for range 240 {
					w.put(stream(1), time.Now(), 1)
				}
				time.Sleep(time.Minute)
			}
		})
		if n := mostWaiting(log.String()); n > 20000 {
			t.Errorf("%d objects waited", n)
		}
	})
}

// A first run on a large estate: what is found ahead of the fetchers is bounded
// for the source, not just for each lane.
func TestInvariant8_ManyStreamsWithABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		w.log = &log
		w.outputs["siem"].Latency = 10 * time.Second
		w.tune = func(c *agent.Config) {
			c.Sources[0].Start = func(now time.Time) time.Time { return now.Add(-10 * day) }
		}
		for s := range 120 {
			for i := range 1000 {
				w.put(stream(s), time.Now().Add(-2*time.Hour-time.Duration(i)*time.Minute), 1)
			}
		}
		w.during(func() { time.Sleep(3 * time.Minute) })
		n := mostWaiting(log.String())
		t.Logf("%d waited", n)
		if n > 2*32768 {
			t.Errorf("%d objects waited", n)
		}
	})
}
