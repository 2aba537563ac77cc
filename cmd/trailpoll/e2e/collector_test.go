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

// An OpenTelemetry Collector that has no queue in memory is killed ten times in
// the midst of a drain, and comes back each time: nothing is lost, and little
// comes twice.
func TestReceivers_CollectorKilled(t *testing.T) {
	const (
		records, kills = 30_000, 10
		bound          = 2 * 4 * 100 // of invariant 2, for each kill
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
url = %q
batch_records = 100
batch_wait = "100ms"
connections = 4
`, c.URL()))
	run := conf.start(t, "run")
	for k := range kills {
		some := c.Written() + 200_000 + rand.Int64N(500_000)
		await(t, time.Minute, fmt.Sprintf("the drain goes on after %d kills", k), func() bool { return c.Written() > some })
		c.Kill()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	stopped(t, run)
	early, err := c.Records()
	if err != nil {
		t.Fatal(err)
	}
	if len(early) >= records {
		t.Errorf("all %d records had come at the last kill: the drain is too short to be killed in its midst", records)
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
	t.Logf("%d kills: %v", kills, got)
	if got.Lost > 0 || got.Altered > 0 {
		t.Errorf("invariant 1: %v", got)
	}
	if got.Repeated > kills*bound {
		t.Errorf("invariant 2: %d records repeated by %d kills, at most %d may be", got.Repeated, kills, kills*bound)
	}
}
