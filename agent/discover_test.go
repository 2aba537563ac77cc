package agent_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// putAt writes an object of a stream that stands under other levels.
func (w *world) putAt(prefix string, n int, stamp time.Time) {
	s := stream(n)
	key := strings.Replace(w.key(s, stamp), "AWSLogs/", prefix, 1)
	w.bucket.Put(key, w.object(key, 2))
}

// Both layouts may be in one bucket, every level has more names than a page,
// and there is much beside the logs: all streams are found.
func TestDiscoveryFindsEveryLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		now := time.Now()
		for n := range 1200 { // more accounts than a page has
			w.putAt("AWSLogs/", n, now)
		}
		w.putAt("AWSLogs/o-abcdefghij/", 1, now)
		w.putAt("AWSLogs/o-abcdefghij/", 5000, now)
		w.putAt("AWSLogs/o-zyxwvutsrq/", 5000, now)
		w.bucket.Put("AWSLogs/", nil)
		w.bucket.Put("AWSLogs/111122220001/CloudTrail-Digest/eu-central-1/2026/11/20/x.json.gz", nil)
		w.bucket.Put("AWSLogs/111122220001/Config/ConfigWritabilityCheckFile", nil)
		w.bucket.Put("AWSLogs/not-an-account/CloudTrail/eu-central-1/2026/11/20/x.json.gz", nil)
		w.bucket.Put("other/AWSLogs/111122229999/CloudTrail/eu-central-1/x.json.gz", nil)
		w.during(func() { time.Sleep(time.Minute) })
		w.complete("siem", 0)

		// A restart discovers nothing that it knew.
		before := w.bucket.Lists("AWSLogs/")
		w.during(func() { time.Sleep(30 * time.Second) })
		if n := w.bucket.Lists("AWSLogs/") - before; n > 1203 {
			t.Errorf("a restart made %d LISTs for 1203 streams", n)
		}
	})
}

func TestDiscoveryOfPinnedLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) {
			c.Sources[0].Organizations = []string{"none"}
			c.Sources[0].Accounts = []string{stream(1).Account, stream(2).Account}
			c.Sources[0].LogTypes = []string{"CloudTrail"}
			c.Sources[0].Regions = []string{"eu-central-1"}
		}
		w.put(stream(1), time.Now(), 2)
		w.put(stream(2), time.Now(), 2)
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			if op == "list" && strings.HasSuffix(what, "/") && !strings.HasSuffix(what, "eu-central-1/") && what != "AWSLogs/" {
				t.Errorf("LIST of %s, though every level is pinned", what)
			}
			return agenttest.Failure{}
		}
		w.during(func() { time.Sleep(time.Hour) })
		w.complete("siem", 0)
		if n := w.bucket.Lists("AWSLogs/") - w.bucket.Lists("AWSLogs/1"); n != 1 {
			t.Errorf("%d LISTs of the root, only the one that asks for S3's time is needed", n)
		}
	})
}

// A level that may not be listed is named, once, and the rest goes on.
func TestInvariant5_DeniedLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		w.log = &log
		denied := "AWSLogs/" + stream(2).Account + "/"
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			if op == "list" && what == denied {
				return agenttest.Failure{Err: &fault.Error{Kind: fault.Denied, Op: "listing " + what, Err: errInjected, Hint: "allow s3:ListBucket"}}
			}
			return agenttest.Failure{}
		}
		for n := range 4 {
			if n != 2 {
				w.put(stream(n), time.Now(), 2)
			}
		}
		w.bucket.Put("AWSLogs/"+stream(2).Account+"/CloudTrail/eu-central-1/x", nil)
		w.during(func() { time.Sleep(2 * time.Hour) })
		w.complete("siem", 0)
		if n := strings.Count(log.String(), `"trouble":"discovering `+denied); n != 1 {
			t.Errorf("the denied level is named %d times, want once:\n%s", n, log.String())
		}
	})
}

// A cap on LISTs is kept, and shared.
func TestInvariant9_ListsAreCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *agent.Config) { c.Sources[0].MaxListsPerMinute = 60 }
		var mu sync.Mutex
		byStream := make(map[string]int)
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			mu.Lock()
			defer mu.Unlock()
			if op == "list" {
				byStream[what]++
			}
			return agenttest.Failure{}
		}
		for n := range 200 {
			w.put(stream(n), time.Now(), 1)
		}
		w.during(func() {
			time.Sleep(time.Hour)
			before := w.bucket.Lists("")
			time.Sleep(time.Hour)
			if n := w.bucket.Lists("") - before; n > 3660 {
				t.Errorf("%d LISTs in an hour, 3600 allowed", n)
			}
		})
		w.complete("siem", 0)
		least, most := 1<<30, 0
		for what, n := range byStream {
			if strings.HasSuffix(what, "eu-central-1/") {
				least, most = min(least, n), max(most, n)
			}
		}
		if least < most/2 {
			t.Errorf("one stream was listed %d times, another %d times", least, most)
		}
	})
}

// A stream is never listed twice at the same time, whatever it is listed for.
func TestOneListingOfAStreamAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "first", "second")
		var mu sync.Mutex
		w.bucket.Latency = 300 * time.Millisecond
		busy := make(map[string]time.Time)
		w.bucket.Fail = func(op, what string) agenttest.Failure {
			mu.Lock()
			defer mu.Unlock()
			if op == "list" {
				if at := busy[what]; time.Since(at) < 300*time.Millisecond && strings.HasSuffix(what, "eu-central-1/") {
					t.Errorf("two LISTs of %s within %v", what, time.Since(at))
				}
				busy[what] = time.Now()
			}
			return agenttest.Failure{}
		}
		now := time.Now()
		for n := range 3 {
			for i := range 3000 {
				w.put(stream(n), now.Add(-time.Duration(i)*20*time.Second), 1)
			}
		}
		w.during(func() { time.Sleep(26 * time.Hour) })
		w.complete("first", 0)
		w.complete("second", 0)
	})
}

// A hundred thousand keys that are not log files cost their pages and no more.
func TestForeignKeysArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		w.log = &log
		now := time.Now().UTC()
		w.put(stream(1), now.Add(-3*time.Hour), 2)
		dir := "AWSLogs/" + stream(1).String() + "/" + now.Format("2006/01/02/")
		for i := range 100_000 {
			w.bucket.Put(fmt.Sprintf("%s0-%06d-not-a-log-file\n.json.gz", dir, i), nil)
		}
		w.put(stream(1), now, 2)
		began := time.Now()
		w.bucket.Latency = 10 * time.Millisecond
		w.finish()
		w.complete("siem", 0)
		if n := w.bucket.Lists("AWSLogs/" + stream(1).String()); n > 110 {
			t.Errorf("%d LISTs for 100 pages", n)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		if !strings.Contains(log.String(), `"not_log_files":100000`) {
			t.Errorf("they are not counted:\n%s", log.String())
		}
		for line := range strings.SplitSeq(strings.TrimSpace(log.String()), "\n") {
			if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}") {
				t.Errorf("invariant 11: a log line is broken: %q", line)
			}
		}
	})
}

// What is no log file may sort behind all that is to come: it must not be taken
// for where the stream stands.
func TestForeignKeyBehindTheLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 2)
		dir := "AWSLogs/" + stream(1).String() + "/"
		w.bucket.Put(dir+"9999/marker", nil)
		for i := range 3000 {
			w.bucket.Put(fmt.Sprintf("%sold/%04d.json.gz", dir, i), nil)
		}
		w.during(func() {
			time.Sleep(time.Hour)
			w.put(stream(1), time.Now(), 2)
			time.Sleep(15 * time.Minute)
			w.complete("siem", 0)
			before := w.bucket.Lists(dir)
			time.Sleep(10 * time.Hour)
			if n := w.bucket.Lists(dir) - before; n > 75 {
				t.Errorf("%d LISTs in ten hours of quiet: what is behind the logs is listed, too", n)
			}
		})
		w.complete("siem", 0)
	})
}

// A log file whose name is years ahead of the time does not hide those that
// come now.
func TestInvariant3_NameFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(stream(1), time.Now(), 2)
		w.put(stream(1), time.Now().Add(3*365*day), 2)
		w.during(func() {
			time.Sleep(time.Minute)
			for range 5 {
				w.put(stream(1), time.Now().Add(-4*time.Minute), 2)
				time.Sleep(70 * time.Second)
				w.complete("siem", 0)
			}
		})
	})
}

// A local clock that is hours off is said, and changes nothing.
func TestInvariant3_WrongClock(t *testing.T) {
	for _, off := range []time.Duration{-7 * time.Hour, 30 * day, -400 * day} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			var log bytes.Buffer
			w.log = &log
			w.tune = func(c *agent.Config) { c.Now = func() time.Time { return time.Now().Add(off) } }
			w.put(stream(1), time.Now(), 2)
			w.during(func() {
				time.Sleep(time.Hour)
				w.put(stream(1), time.Now(), 2)
				w.put(stream(1), time.Now().Add(-4*day), 2)
				time.Sleep(25 * time.Hour)
			})
			w.complete("siem", 0)
			if n := strings.Count(log.String(), `"trouble":"the local clock"`); n != 1 {
				t.Errorf("a clock that is %v ahead is said %d times, want once", off, n)
			}
		})
	}
}

// S3's clock was ahead for a while and is right again: what is remembered by it
// must not put off the discovery of new streams until that time comes. A daily
// sweep is put off by as much as the clock was wrong, and then finds all.
func TestInvariant3_S3ClockSetBack(t *testing.T) {
	for _, skew := range []time.Duration{10 * time.Minute, 20 * time.Minute, 2 * day} {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v once=%v", skew, once), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.put(stream(1), time.Now(), 2)
					w.during(func() { time.Sleep(time.Hour) }) // the source begins by the right time
					w.bucket.Skew = skew
					w.during(func() { time.Sleep(time.Hour) })
					w.bucket.Skew = 0
					w.put(stream(2), time.Now(), 2)
					switch {
					case !once:
						w.during(func() {
							time.Sleep(time.Hour)
							w.put(stream(1), time.Now().Add(-4*day), 2)
							time.Sleep(skew + 25*time.Hour) // by then a sweep is due by any of the clocks
						})
					case skew < 15*time.Minute: // a discovery is due by then
						time.Sleep(2 * 15 * time.Minute)
						fallthrough
					default:
						w.once()
					}
					w.complete("siem", 0)
				})
			})
		}
	}
}
