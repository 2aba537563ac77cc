package agent_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// settledEstate fills a bucket with 50 accounts × 17 regions × days, four
// objects a day and stream, and a checkpoint that has settled all of them.
func settledEstate(t *testing.T, days int) *world {
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Minute)
	src := progress.Source{
		FirstSeen: now.Add(-time.Duration(days) * day), Discovered: now,
		Outputs: map[string]progress.Begin{"siem": {Start: now.Add(-time.Duration(days) * day), FirstSeen: now.Add(-time.Duration(days) * day)}},
	}
	id := agent.SourceID(bucketName, "")
	body := zip(`{"Records":[]}`)
	for a := range 50 {
		for r := range 17 {
			st := progress.Stream{Account: fmt.Sprintf("%012d", 111122220000+a), LogType: "CloudTrail", Region: fmt.Sprintf("eu-test-%d", r)}
			src.Streams = append(src.Streams, st)
			lane := progress.Lane{Source: id, Stream: st, Output: "siem"}
			var c progress.Changes
			last := ""
			for n := range days * 4 {
				stamp := now.Add(-time.Duration(days)*day + time.Duration(n+1)*6*time.Hour - 2*time.Hour)
				key := w.key(st, stamp)
				w.bucket.PutAt(key, body, stamp)
				last = key[len("AWSLogs/"+st.String()+"/"):]
				if now.Sub(stamp) < 31*day {
					c.Settled = append(c.Settled, progress.ObjectSettled{Lane: lane, Position: last})
				}
			}
			pruned := last[:0] + now.Add(-31*day).Format("2006/01/02")
			c.Heads = []progress.LaneHead{{Lane: lane, Head: progress.Head{Watermark: last, Hourly: now, Daily: now.Add(-19 * time.Hour), Pruned: pruned}}}
			if err := w.memory.Commit(&c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.memory.Commit(&progress.Changes{Sources: map[progress.SourceID]progress.Source{id: src}}); err != nil {
		t.Fatal(err)
	}
	return w
}

// What listing costs does not grow with the age of the bucket: one idle pass is
// a LIST a stream, and an hour of quiet far less than one a minute.
func TestInvariant9_CostOfListing(t *testing.T) {
	const streams = 850
	var passes, hours []int
	histories := []int{90, 900}
	if raced {
		histories = []int{40, 80}
	}
	for _, days := range histories {
		synctest.Test(t, func(t *testing.T) {
			w := settledEstate(t, days)
			w.bucket.Latency = 30 * time.Millisecond
			began := time.Now()
			w.finish()
			took := time.Since(began)
			pass := w.bucket.Lists("")
			if pass > streams {
				t.Errorf("one idle pass made %d LISTs, at most %d allowed", pass, streams)
			}
			if took > 2500*time.Millisecond {
				t.Errorf("one idle pass took %v at 30 ms a request, at most 2.5 s allowed", took)
			}
			if n := w.outputs["siem"].Sends(); n > 0 {
				t.Errorf("%d batches were sent", n)
			}
			var hour int
			w.during(func() {
				time.Sleep(4 * time.Hour) // until it is quiet
				before := w.bucket.Lists("")
				time.Sleep(6 * time.Hour) // the day's sweep falls into it
				hour = (w.bucket.Lists("") - before) / 6
			})
			if hour > 6500 {
				t.Errorf("%d LISTs an hour in quiet, at most 6500 allowed", hour)
			}
			t.Logf("%d days of history: an idle pass of %d LISTs takes %v; %d LISTs an hour in quiet (one a minute would be %d)", days, pass, took, hour, streams*60)
			passes, hours = append(passes, pass), append(hours, hour)
		})
	}
	if passes[0] != passes[1] {
		t.Errorf("ten times the history: %d LISTs a pass, not %d", passes[1], passes[0])
	}
	if d := hours[1] - hours[0]; d > hours[0]/100 || d < -hours[0]/100 {
		t.Errorf("ten times the history: %d LISTs an hour, not %d", hours[1], hours[0])
	}
}
