//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
)

// troubledCollector runs the program over a backlog, to an OpenTelemetry
// Collector that has no queue in memory, while something goes wrong ten times in
// its midst, and then to its end: nothing may be lost, and little comes twice.
// at makes the address that is sent to out of the collector's.
func troubledCollector(t *testing.T, at func(*receivertest.Collector) string, wrong func(c *receivertest.Collector, i int)) {
	const (
		records, times = 30_000, 10
		bound          = 2 * 4 * 100 // of invariant 2, each time
	)
	b := newBucket(t)
	c, err := receivertest.StartCollector(t.TempDir())
	if errors.Is(err, receivertest.ErrNoProgram) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	expect := &receiver{name: "collector"}
	drain(t, b, records, expect)
	conf := newSettings(t, "", source("drain", b, "", ""), fmt.Sprintf(`
[[output]]
name = "collector"
type = "https"
format = "otlp"
url = "http://%s/v1/logs"
batch_records = 100
batch_wait = "100ms"
connections = 4
timeout = "2s"
`, at(c)))
	run := conf.start(t, "run")
	for i := range times {
		some := c.Written() + 200_000 + rand.Int64N(500_000)
		await(t, time.Minute, fmt.Sprintf("the drain goes on after %d times", i), func() bool { return c.Written() > some })
		wrong(c, i)
	}
	stopped(t, run)
	early, err := c.Records()
	if err != nil {
		t.Fatal(err)
	}
	if len(early) >= records {
		t.Errorf("all %d records had come by the last time: the drain is too short", records)
	}
	conf.code(t, 0, 2*time.Minute, "run", "--once")
	logs, err := c.Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		expect.take([]byte(l.Body))
	}
	got := expect.tally.Result()
	t.Logf("%d times: %v", times, got)
	if got.Lost > 0 || got.Altered > 0 {
		t.Errorf("invariant 1: %v", got)
	}
	if got.Repeated > times*bound {
		t.Errorf("invariant 2: %d records repeated, at most %d may be", got.Repeated, times*bound)
	}
}

// The collector is killed with SIGKILL and started again.
func TestReceivers_Invariant1_CollectorKilled(t *testing.T) {
	troubledCollector(t, (*receivertest.Collector).Addr, func(c *receivertest.Collector, _ int) {
		c.Kill()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	})
}

// The network is cut; every other time it has been silent before.
func TestReceivers_Invariant1_CollectorCutOff(t *testing.T) {
	var w *receivertest.Wire
	troubledCollector(t, func(c *receivertest.Collector) string {
		var err error
		if w, err = receivertest.NewWire(c.Addr()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Close() })
		return w.Addr()
	}, func(_ *receivertest.Collector, i int) {
		w.Cut(time.Duration(i%2) * 200 * time.Millisecond)
	})
}
