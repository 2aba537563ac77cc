//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

// arrivals notes when and how often each record came, by its eventID.
type arrivals struct {
	mu    sync.Mutex
	first map[string]time.Time
	count map[string]int
	old   int // distinct ones that are not of live traffic
}

func (a *arrivals) take(q *receivertest.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, raw := range q.Records {
		var r struct {
			EventID string `json:"eventID"`
		}
		if json.Unmarshal(raw, &r) != nil {
			continue
		}
		if a.count[r.EventID]++; a.count[r.EventID] == 1 {
			a.first[r.EventID] = time.Now()
			if !strings.HasPrefix(r.EventID, "live") {
				a.old++
			}
		}
	}
}

func (a *arrivals) olds() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.old
}

func (a *arrivals) total() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, c := range a.count {
		if !strings.HasPrefix(id, "live") {
			n += c
		}
	}
	return n
}

// oneRecord is an object of one record.
func oneRecord(id string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprintf(z, `{"Records":[{"eventVersion":"1.11","eventTime":"2026-01-02T03:04:05Z","eventID":%q}]}`, id)
	_ = z.Close()
	return b.Bytes()
}

// A re-sync of 30 days beyond the late horizon over tens of thousands of
// objects, by an agent that is killed three times and has live traffic beside
// it: each record comes, at most what a kill may repeat comes twice, what is
// new comes within refresh and 5 s, and a second run of the window sends
// nothing.
func TestE2E_Invariant1_Resync(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while: not with -short")
	}
	const (
		objects = 20_000
		streams = 4
		days    = 30
		kills   = 3
		refresh = 2 * time.Second
		bound   = 2 * 4 * 100 // connections and batch_records, below
		name    = "trail"
	)
	srv, err := s3test.Start(s3test.Config{AccessKey: accessKey, Region: homeRegion})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	account := func(n int) string { return fmt.Sprintf("%012d", 444455550000+n) }
	key := func(n int, at time.Time, unique string) string {
		at = at.UTC()
		return fmt.Sprintf("AWSLogs/%[1]s/CloudTrail/eu-west-1/%[2]s/%[1]s_CloudTrail_eu-west-1_%[3]s_%[4]s.json.gz",
			account(n), at.Format("2006/01/02"), at.Format("20060102T1504Z"), unique)
	}
	from := time.Now().UTC().Add(-90 * 24 * time.Hour).Truncate(24 * time.Hour)
	step := days * 24 * time.Hour * streams / objects
	srv.PutAll(name, func(yield func(string) bool) {
		for i := range objects {
			if !yield(key(i%streams, from.Add(time.Duration(i/streams)*step), fmt.Sprintf("%016d", i))) {
				return
			}
		}
	}, s3test.Object{
		LastModified: from.Add(days * 24 * time.Hour),
		Make:         func(key string) []byte { return oneRecord(key[len(key)-24 : len(key)-8]) },
		Size:         150,
	})
	came := &arrivals{first: make(map[string]time.Time), count: make(map[string]int)}
	web := newHTTPS(t, "web", receivertest.HTTPConfig{
		Take: func([]byte) {},
		Answer: func(q *receivertest.Request) receivertest.Answer {
			came.take(q)
			return receivertest.Answer{}
		},
	})
	conf := newSettings(t, "", fmt.Sprintf(`
[[source]]
name = "trail"
bucket = %q
region = %q
endpoint = %q
path_style = true
start = "now"
refresh = %q
idle_refresh = %q
discovery = "2s"
[source.credentials]
type = "static"
access_key_id = %q
secret_access_key = "env:%s"
`, name, homeRegion, srv.URL(), refresh, refresh, accessKey, secretInEnv), web.output("batch_records = 100\nconnections = 4"))

	type up struct{ from, to time.Time }
	var ups []up
	c := conf.start(t, "run")
	began := time.Now()
	await(t, 30*time.Second, "the streams are discovered", func() bool { return len(c.entries("stream discovered")) == streams })

	// Live traffic until the re-sync is done.
	var mu sync.Mutex
	put := make(map[string]time.Time)
	live, stopLive := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	defer traffic.Wait()
	defer stopLive()
	traffic.Go(func() {
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-live.Done():
				return
			}
			id := fmt.Sprintf("live%012d", n)
			srv.Put(name, key(n%streams, time.Now(), id), oneRecord(id))
			mu.Lock()
			put[id] = time.Now()
			mu.Unlock()
		}
	})
	await(t, 30*time.Second, "live records come", func() bool { came.mu.Lock(); defer came.mu.Unlock(); return len(came.first) > streams })
	window := []string{"--from", from.Format(time.DateOnly), "--to", from.AddDate(0, 0, days-1).Format(time.DateOnly)}
	resync := func(more ...string) []string { return append(append([]string{"resync"}, window...), more...) }
	conf.code(t, 0, 30*time.Second, resync("--detach")...)
	for k := range kills {
		want := objects * (k + 1) / (kills + 2)
		await(t, 3*time.Minute, fmt.Sprintf("%d objects of the re-sync", want), func() bool { return came.olds() >= want })
		ups = append(ups, up{began, time.Now()})
		c.Kill()
		if n := came.olds(); n == objects {
			t.Errorf("kill %d came too late", k+1)
		}
		c = conf.start(t, "run")
		began = time.Now()
	}
	await(t, 5*time.Minute, "all objects of the re-sync", func() bool { return came.olds() == objects })
	jobs := func() (all []struct {
		ID                       int
		State                    string
		Objects, Passed, Records int
	}) {
		out := conf.code(t, 0, 30*time.Second, "resync", "list", "--json")
		var answer struct {
			Schema int
			Jobs   json.RawMessage
		}
		if err := json.Unmarshal(out.Stdout.Bytes(), &answer); err != nil || answer.Schema != 1 || json.Unmarshal(answer.Jobs, &all) != nil {
			t.Fatalf("%v: %s", err, out.Stdout.String())
		}
		return all
	}
	await(t, 30*time.Second, "it is done", func() bool { return jobs()[0].State == "done" })
	first := jobs()[0]
	if first.Objects != objects || first.Passed != 0 || first.Records != objects {
		t.Errorf("the re-sync says %+v", first)
	}
	// What was put last is still to come.
	stopLive()
	traffic.Wait()
	await(t, 30*time.Second, "the last live record", func() bool {
		came.mu.Lock()
		defer came.mu.Unlock()
		return len(came.first) == objects+len(put)
	})
	ups = append(ups, up{began, time.Now()})

	repeated := came.total() - objects
	if repeated > kills*bound {
		t.Errorf("invariant 2: %d records repeated after %d kills, at most %d may be", repeated, kills, kills*bound)
	}
	var lags []time.Duration
	for id, at := range put {
		for _, u := range ups {
			if at.Before(u.to) && came.first[id].After(u.from) {
				if end := came.first[id]; !end.After(u.to) {
					lags = append(lags, end.Sub(later(at, u.from)))
				} else {
					lags = append(lags, u.to.Sub(later(at, u.from)))
				}
			}
		}
	}
	slices.Sort(lags)
	worst := lags[len(lags)-1]
	t.Logf("%d objects, %d live ones beside them; %d records repeated after %d kills; live lag: half within %v, all within %v",
		objects, len(put), repeated, kills, lags[len(lags)/2], worst)
	if worst > refresh+5*time.Second {
		t.Errorf("what is new lagged by %v, more than refresh and 5 s", worst)
	}

	out := conf.code(t, 0, time.Minute, resync("--json")...)
	if second := jobs()[1]; second.Objects != 0 || second.Passed != objects || !strings.Contains(out.Stdout.String(), `"state":"done"`) {
		t.Errorf("the second run says %+v and printed %s", second, out.Stdout.String())
	}
	stopped(t, c)
	// Without an agent the command does the work itself, and has nothing to do.
	out = conf.code(t, 0, time.Minute, resync()...)
	if !strings.Contains(out.Stdout.String(), "0 objects sent") {
		t.Errorf("the third run printed %s", out.Stdout.String())
	}
	if n := came.total() - objects; n != repeated {
		t.Errorf("the second and the third run sent %d records", n-repeated)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
