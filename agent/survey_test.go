package agent_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/checkpoint/checkpointtest"
)

// estate is a bucket to which objects come at known times.
type estate struct {
	bucket agenttest.Bucket
	body   []byte
	serial int
	comes  []coming // ascending
}

type coming struct {
	at  time.Time
	key string
}

func newEstate() *estate {
	return &estate{body: zip(`{"Records":[{"eventVersion":"1.11","eventID":"e"}]}`)}
}

func (e *estate) stream(account, region string) progress.Stream {
	return progress.Stream{Account: account, LogType: "CloudTrail", Region: region}
}

// add has an object come to a stream at some time, with the stamp of the five
// minutes before.
func (e *estate) add(s progress.Stream, at time.Time) {
	e.serial++
	stamp := at.UTC().Add(-3 * time.Minute).Truncate(5 * time.Minute)
	e.comes = append(e.comes, coming{at, fmt.Sprintf("AWSLogs/%s/%s/%s_%s_%s_%s_%016x.json.gz", s.String(),
		stamp.Format("2006/01/02"), s.Account, s.LogType, s.Region, stamp.Format("20060102T1504Z"), uint64(e.serial)*0x9E3779B97F4A7C15)})
}

// fill puts all that has come by now.
func (e *estate) fill() {
	slices.SortStableFunc(e.comes, func(a, b coming) int { return a.at.Compare(b.at) })
	for len(e.comes) > 0 && !e.comes[0].at.After(time.Now()) {
		e.bucket.PutAt(e.comes[0].key, e.body, e.comes[0].at)
		e.comes = e.comes[1:]
	}
}

// feed puts what comes until then, when it comes.
func (e *estate) feed(until time.Time) {
	e.fill()
	for len(e.comes) > 0 && e.comes[0].at.Before(until) {
		time.Sleep(time.Until(e.comes[0].at))
		e.fill()
	}
	time.Sleep(time.Until(until))
}

func (e *estate) source() agent.SourceConfig {
	return agent.SourceConfig{
		Name: "trail", Bucket: "logs", Store: &e.bucket,
		Start:   func(now time.Time) time.Time { return now.Add(-time.Hour) },
		Refresh: time.Minute, IdleRefresh: 10 * time.Minute, LookBack: time.Hour,
		LateHorizon: 48 * time.Hour, Discovery: 15 * time.Minute,
	}
}

func settings(c agent.SourceConfig) plan.Settings {
	return plan.Settings{
		Refresh: c.Refresh, IdleRefresh: c.IdleRefresh, LookBack: c.LookBack, LateHorizon: c.LateHorizon,
		Discovery: c.Discovery, MaxListsPerMinute: c.MaxListsPerMinute,
	}
}

// run runs an agent over the estate and returns what it asked of the bucket in
// the day after its first hour: LISTs by prefix, GETs.
func (e *estate) run(t *testing.T, cfg agent.SourceConfig, lists map[string]int) (gets int) {
	t.Helper()
	a, err := agent.New(agent.Config{
		Sources:    []agent.SourceConfig{cfg},
		Outputs:    []agent.OutputConfig{{Name: "siem", Output: new(agenttest.Output), BatchRecords: 100, BatchBytes: 1 << 20, BatchWait: time.Second, Connections: 2}},
		Checkpoint: checkpointtest.NewMemory(), Log: zerolog.Nop(),
		Memory: 64 << 20, MaxRecord: 1 << 20, DrainTimeout: 20 * time.Second, Downloads: 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := a.Run(ctx, context.Background())
		done <- err
	}()
	e.feed(time.Now().Add(time.Hour))
	was := make(map[string]int)
	for p := range lists {
		was[p] = e.bucket.Lists(p)
	}
	before := e.bucket.Gets("")
	e.feed(time.Now().Add(24 * time.Hour))
	for p := range lists {
		lists[p] = e.bucket.Lists(p) - was[p]
	}
	gets = e.bucket.Gets("") - before
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return gets
}

// What the plan says of the next day from the last two is what the agent then
// does.
func TestInvariant9_PlanForeseesTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate()
		random := rand.New(rand.NewPCG(1, 2))
		begin := time.Now().Add(-3 * plan.Day)
		even := e.stream("111122220001", "eu-central-1")
		hourly := e.stream("111122220001", "us-east-1")
		office := e.stream("111122220002", "eu-central-1")
		chance := e.stream("111122220002", "us-east-1")
		idle := e.stream("111122220003", "us-east-1")
		busy := e.stream("111122220003", "eu-central-1")
		e.add(idle, begin)
		for m := range 5 * 24 * 60 {
			at := begin.Add(time.Duration(m)*time.Minute + time.Duration(random.IntN(20))*time.Second)
			hour := m / 60 % 24
			if m%5 == 0 {
				e.add(even, at)
			}
			if m%60 == 17 {
				e.add(hourly, at)
			}
			if m%5 == 2 && hour >= 8 && hour < 17 {
				e.add(office, at)
			}
			if random.Float64() < 1.0/40 {
				e.add(chance, at)
			}
			for i := range 4 {
				e.add(busy, at.Add(time.Duration(i)*10*time.Second))
			}
		}
		e.fill()
		cfg := e.source()
		cfg.LookBack = 6 * time.Hour // 1,440 objects of the busy stream
		found, err := agent.Survey(t.Context(), cfg, agent.SurveyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Failed) > 0 || len(found.Streams) != 6 {
			t.Fatalf("%d streams, %v", len(found.Streams), found.Failed)
		}

		lists := map[string]int{"": 0}
		for _, st := range found.Streams {
			lists["AWSLogs/"+st.ID.String()+"/"] = 0
		}
		gets := e.run(t, cfg, lists)
		src := plan.Source{Settings: settings(cfg), Streams: found.Streams, DiscoveryLists: found.DiscoveryLists}
		check := func(what string, planned float64, counted int) {
			t.Logf("%-36s planned %8.1f, counted %6d", what, planned, counted)
			if math.Abs(planned-float64(counted)) > 0.1*float64(counted) {
				t.Errorf("%s: planned %.1f, counted %d: more than a tenth off", what, planned, counted)
			}
		}
		discovery := lists[""]
		for i := range found.Streams {
			st := &found.Streams[i]
			p := "AWSLogs/" + st.ID.String() + "/"
			check(st.ID.String(), src.StreamLoad(st, src.Settings).Lists(), lists[p])
			discovery -= lists[p]
		}
		l := src.Load(src.Settings)
		check("discovery", l.Discoveries, discovery)
		check("all", l.Lists(), lists[""])
		check("GETs", l.Gets, gets)
	})
}

func TestSurvey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate()
		now := time.Now()
		a, b, c := e.stream("111122220001", "eu-central-1"), e.stream("111122220002", "eu-central-1"), e.stream("111122220003", "eu-central-1")
		for i := range 48 {
			e.add(a, now.Add(-time.Duration(i)*time.Hour-30*time.Minute))
		}
		for i := range 3 * 1440 * 6 { // 8,640 a day, 10 seconds apart
			e.add(b, now.Add(-time.Duration(i)*10*time.Second))
		}
		e.add(c, now.Add(-9*plan.Day))
		e.fill()
		e.bucket.Put("AWSLogs/111122220001/CloudTrail/eu-central-1/", nil)
		e.bucket.Put("AWSLogs/111122220001/Config/eu-central-1/x.json.gz", nil)

		found, err := agent.Survey(t.Context(), e.source(), agent.SurveyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Streams) != 3 || len(found.Failed) != 0 || found.Extrapolated != 1 {
			t.Fatalf("%d streams, %v failed, %d extrapolated", len(found.Streams), found.Failed, found.Extrapolated)
		}
		// The root, three accounts, a log type of each; then a page, ten, and one.
		if found.DiscoveryLists != 7 || found.Lists != 7+1+10+1 || e.bucket.Lists("") != found.Lists {
			t.Errorf("%d LISTs of discovery, %d in all, %d counted", found.DiscoveryLists, found.Lists, e.bucket.Lists(""))
		}
		if e.bucket.Gets("") != 0 {
			t.Error("a survey has read objects")
		}
		if got := found.Streams[0]; got.ID != a || got.Objects != 24 || got.Bytes != 24*float64(len(e.body)) ||
			!got.Last.Equal(now.Add(-30*time.Minute)) {
			t.Errorf("%v: %v objects, %v bytes, last %v", got.ID, got.Objects, got.Bytes, got.Last)
		}
		if got := found.Streams[1]; got.ID != b || math.Abs(got.Objects-8640) > 0.02*8640 {
			t.Errorf("%v: %v objects, want about 8,640", got.ID, got.Objects)
		}
		if got := found.Streams[2]; got.ID != c || got.Objects != 0 || !got.Last.IsZero() {
			t.Errorf("%v: %v objects, last %v", got.ID, got.Objects, got.Last)
		}
		var seen time.Duration
		for _, g := range found.Streams[0].Gaps {
			seen += g
		}
		if seen != 2*plan.Day {
			t.Errorf("gaps of %v in two days", seen)
		}
	})
}

func TestSurveyPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate()
		e.bucket.Skew = 40 * plan.Day
		e.add(e.stream("111122220001", "eu-central-1"), time.Now())
		e.fill()
		for _, k := range e.comes {
			t.Error("not there:", k.key)
		}
		cfg := e.source()
		cfg.Organizations, cfg.Accounts = []string{"none"}, []string{"111122220001"}
		cfg.LogTypes, cfg.Regions = []string{"CloudTrail"}, []string{"eu-central-1", "us-east-1"}
		found, err := agent.Survey(t.Context(), cfg, agent.SurveyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// One LIST for the time, one for each stream. By S3's clock the object
		// is 40 days old.
		if found.DiscoveryLists != 0 || found.Lists != 3 || len(found.Streams) != 2 || found.Streams[0].Objects != 0 {
			t.Errorf("%+v", found)
		}
		if got := time.Until(found.At); got < 39*plan.Day {
			t.Errorf("S3's clock is %v ahead, want 40 days", got)
		}
	})
}

func TestSurveyNamesWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate()
		for i := range 3 {
			e.add(e.stream(fmt.Sprintf("11112222000%d", i), "eu-central-1"), time.Now().Add(-time.Hour))
		}
		e.fill()
		denied := &fault.Error{Kind: fault.Denied, Op: "listing", Err: errors.New("AccessDenied"), Hint: "grant s3:ListBucket"}
		e.bucket.Fail = func(_, what string) agenttest.Failure {
			if strings.HasPrefix(what, "AWSLogs/111122220000/CloudTrail/") || strings.HasPrefix(what, "AWSLogs/111122220001/CloudTrail/eu") {
				return agenttest.Failure{Err: denied}
			}
			return agenttest.Failure{}
		}
		found, err := agent.Survey(t.Context(), e.source(), agent.SurveyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var failed []string
		for _, f := range found.Failed {
			failed = append(failed, f.Prefix)
			if fault.KindOf(f.Err) != fault.Denied {
				t.Errorf("%s: %v", f.Prefix, f.Err)
			}
		}
		if want := []string{"AWSLogs/111122220000/CloudTrail/", "AWSLogs/111122220001/CloudTrail/eu-central-1/"}; !slices.Equal(failed, want) {
			t.Errorf("%v, want %v", failed, want)
		}
		if len(found.Streams) != 2 || found.Streams[1].Objects != 0.5 {
			t.Errorf("%+v", found.Streams)
		}

		e.bucket.Fail = func(string, string) agenttest.Failure { return agenttest.Failure{Err: denied} }
		if _, err := agent.Survey(t.Context(), e.source(), agent.SurveyOptions{}); fault.KindOf(err) != fault.Denied {
			t.Errorf("nothing can be listed: %v", err)
		}
	})
}
