package plan

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// defaults are those of the configuration.
func defaults() Settings {
	return Settings{
		Refresh: time.Minute, IdleRefresh: 10 * time.Minute, LookBack: time.Hour,
		LateHorizon: 30 * Day, Discovery: 15 * time.Minute,
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.0005*math.Abs(want)+1e-9 {
		t.Errorf("%s: %.4f, want %.4f", what, got, want)
	}
}

func TestCadence(t *testing.T) {
	for _, c := range []struct {
		quiet time.Duration
		never bool
		want  time.Duration
	}{
		{0, false, time.Minute},
		{4 * time.Minute, false, time.Minute},
		{8 * time.Minute, false, 2 * time.Minute},
		{39 * time.Minute, false, 9*time.Minute + 45*time.Second},
		{time.Hour, false, 10 * time.Minute},
		{0, true, 10 * time.Minute},
	} {
		if got := Cadence(c.quiet, c.never, time.Minute, 10*time.Minute); got != c.want {
			t.Errorf("quiet for %v (never %v): %v, want %v", c.quiet, c.never, got, c.want)
		}
	}
}

// The numbers are worked out by hand, in minutes.
func TestStreamLoad(t *testing.T) {
	for _, c := range []struct {
		name          string
		objects       float64
		gaps          []time.Duration
		tails, sweeps float64
	}{{
		// Idle: a pass every 10, so 1440/10 = 144. An hourly sweep falls due
		// every 60 and is made 10/2 later: 1440/65 = 22.1538 of the passes.
		name: "nothing comes", tails: 144 - 22.1538, sweeps: 22.1538,
	}, {
		// Every 5: passes at 1, 2, 3, 4, 5, so 5 a gap, 5×288 = 1440.
		// Sweeps: 1440/60.5 = 23.8017, of which daily 1440/1440.5 = 0.99965.
		// 0.2 a minute: an hourly one lists 0.2×1500.5 = 300, one page; a daily
		// one 0.2×(43200+1440.5) = 8928.1: 9.4281 pages, and one over the last
		// hour in between.
		name: "every five minutes", objects: 288,
		tails: 1440 - 23.8017, sweeps: 23.8017 + 0.99965*(9.4281-1) + 0.99965,
	}, {
		// Every 60: passes at 1 2 3 4 5, then each a quarter later: 6.25 7.8125
		// 9.7656 12.207 15.2588 19.0735 23.8419 29.8023 37.2529 46.5661, then
		// 10 later: 56.5661 is the 16th; 3.4339 of 10 remain: 16.3434 a gap,
		// 392.241 a day, one every 3.6712. Sweeps: 1440/61.8356 = 23.2876.
		name: "every hour", objects: 24, tails: 392.241 - 23.2876, sweeps: 23.2876,
	}, {
		// 100 at once, then nothing for the day: 15 passes to 46.5661, then
		// (1440-46.5661)/10 = 139.343. One every 9.3299; sweeps
		// 1440/64.6650 = 22.2686; daily 1440/1444.665 = 0.99677, listing
		// 100×(30+1.00324) = 3100.3: 3.6003 pages, and one in between.
		name: "once a day", objects: 100, gaps: []time.Duration{Day},
		tails: 154.343 - 22.2686, sweeps: 22.2686 + 0.99677*(3.6003-1) + 0.99677,
	}, {
		// 20.8333 a minute: every pass finds some: 1440. The look-back has
		// 20.8333×61 = 1270.83: 1.40625 pages; a sixth of it 229: one. Far
		// passes: 1440/15.5 = 92.9032, the 23.8017 sweeps among them. Hourly:
		// 20.8333×1500.5 = 31260.4: 31.7604 pages; daily: 20.8333×44640.5 =
		// 930010: 930.510 pages. In between each, the last hour: 1250 objects,
		// 1.375 pages.
		name: "busy", objects: 30000,
		tails:  1440 - 23.8017 + (92.9032-23.8017)*0.40625,
		sweeps: 23.8017*31.7604 + 0.99965*(930.510-31.7604) + 23.8017*1.375,
	}} {
		t.Run(c.name, func(t *testing.T) {
			s := Source{KMS: true}
			l := s.StreamLoad(&Stream{Objects: c.objects, Bytes: c.objects * 5000, Gaps: c.gaps}, defaults())
			near(t, "tails", l.Tails, c.tails)
			near(t, "sweeps", l.Sweeps, c.sweeps)
			near(t, "GETs", l.Gets, c.objects)
			near(t, "KMS", l.KMS, c.objects)
			near(t, "bytes", l.Bytes, c.objects*5000)
		})
	}
}

func TestListingBytes(t *testing.T) {
	var s Source
	// Every 5 minutes, from above: 1449.425 answers of 1000 bytes. Entries:
	// 1416.198 tails of 0.2×61 = 12.2, 22.802 hourly sweeps of 300.1, 0.99965
	// daily ones of 8928.1, each with a pass of 12 in between: 33057.6, of 430
	// bytes.
	l := s.StreamLoad(&Stream{Objects: 288}, defaults())
	near(t, "bytes", l.ListingBytes, 1449.425*1000+33057.6*430)
}

func TestSourceLoad(t *testing.T) {
	s := Source{Settings: defaults(), DiscoveryLists: 7, Streams: []Stream{{Objects: 288, Bytes: 1e6}, {}}}
	l := s.Load(s.Settings)
	// One every 15 minutes: 96 a day.
	near(t, "discovery", l.Discoveries, 7*96)
	near(t, "tails and sweeps", l.Tails+l.Sweeps, 144+1449.425)
	near(t, "KMS", l.KMS, 0)
	if l.Capped {
		t.Error("capped without a cap")
	}
	c := s.Settings
	c.MaxListsPerMinute = 1
	if l = s.Load(c); !l.Capped {
		t.Error("the cap does nothing")
	}
	near(t, "capped", l.Lists(), 1440)
}

// The figures of 17 idle streams at 1 minute are those that other collectors
// are measured by: 17×1440×30 = 734,400 LISTs, 3.672 USD.
func TestMonth(t *testing.T) {
	s := Source{Streams: make([]Stream, 17)}
	l := s.Load(Settings{Refresh: time.Minute, IdleRefresh: time.Minute, LookBack: time.Hour, LateHorizon: 30 * Day})
	near(t, "LISTs", l.Lists(), 17*1440)
	p := DefaultPrices()
	near(t, "USD", p.Month(l).Lists, 3.672)

	// 100,000 GETs a day are 3 million a month: 1.20; as many KMS calls: 9.00;
	// 10 GB a day are 300 GB: 27.00.
	c := p.Month(Load{Gets: 1e5, KMS: 1e5, Bytes: 9e9, ListingBytes: 1e9})
	near(t, "GETs", c.Gets, 1.2)
	near(t, "KMS", c.KMS, 9)
	near(t, "transfer", c.Transfer, 27)
	near(t, "total", c.Total(), 37.2)
	near(t, "requests", c.Requests(), 1.2)
}

func TestParsePrices(t *testing.T) {
	p, err := ParsePrices("list=0.0053, transfer=0")
	if err != nil || p != (Prices{List: 0.0053, Get: 0.0004, KMS: 0.003}) {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = ParsePrices(""); err != nil || p != DefaultPrices() {
		t.Errorf("%+v, %v", p, err)
	}
	for in, want := range map[string]string{
		"put=1":         `"put" is no price: there are list, get and kms (USD per 1,000) and transfer (USD per GB)`,
		"list":          `list: "" is no price: write US dollars, as in list=0.005`,
		"list=-1":       `list: "-1" is no price: write US dollars, as in list=0.005`,
		"get=NaN,kms=x": "get: \"NaN\" is no price: write US dollars, as in list=0.005\nkms: \"x\" is no price: write US dollars, as in list=0.005",
	} {
		if _, err := ParsePrices(in); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

func FuzzParsePrices(f *testing.F) {
	f.Add("list=0.005,get=0.0004,kms=0.003,transfer=0.09")
	f.Add("list=1e999")
	f.Add(",,=,")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePrices(s)
		for _, x := range []float64{p.List, p.Get, p.KMS, p.Transfer} {
			if err == nil && (math.IsNaN(x) || math.IsInf(x, 0) || x < 0) {
				t.Errorf("%q became %+v", s, p)
			}
		}
	})
}

// A source that could be anyone's.
func anySource() *rapid.Generator[Source] {
	return rapid.Custom(func(t *rapid.T) Source {
		dur := func(what string, least, most time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(int64(least), int64(most)).Draw(t, what))
		}
		c := Settings{
			Refresh: dur("refresh", time.Second, time.Hour), LookBack: dur("look_back", time.Minute, Day),
			Discovery: dur("discovery", time.Minute, Day), MaxListsPerMinute: rapid.IntRange(0, 20).Draw(t, "cap"),
		}
		c.IdleRefresh = dur("idle_refresh", c.Refresh, 12*time.Hour)
		c.LateHorizon = dur("late_horizon", c.LookBack, 60*Day)
		s := Source{Settings: c, DiscoveryLists: rapid.IntRange(0, 50).Draw(t, "discovery LISTs"), KMS: rapid.Bool().Draw(t, "kms")}
		for range rapid.IntRange(0, 4).Draw(t, "streams") {
			st := Stream{Objects: math.Exp(rapid.Float64Range(-3, 13).Draw(t, "objects"))}
			st.Bytes = st.Objects * 4000
			if rapid.Bool().Draw(t, "uneven") {
				for range rapid.IntRange(1, 30).Draw(t, "gaps") {
					st.Gaps = append(st.Gaps, dur("gap", time.Second, 8*time.Hour))
				}
			}
			s.Streams = append(s.Streams, st)
		}
		return s
	})
}

func TestInvariant9_LongerRefreshNeverCostsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySource().Draw(t, "source")
		f := math.Exp(rapid.Float64Range(0, 6).Draw(t, "ln factor"))
		now, then := s.Load(s.Settings), s.Load(s.Settings.Scaled(f))
		// Where the cap holds, fewer and larger answers may come of it.
		if then.Lists() > now.Lists()*(1+1e-9) || then.ListingBytes > now.ListingBytes*(1+1e-9) && !now.Capped {
			t.Fatalf("×%.3f: %.3f LISTs and %.0f bytes became %.3f and %.0f", f, now.Lists(), now.ListingBytes, then.Lists(), then.ListingBytes)
		}
		// Also when only one of the two is longer.
		c := s.Settings
		c.Refresh = min(scaled(c.Refresh, f), c.IdleRefresh)
		if then = s.Load(c); then.Lists() > now.Lists()*(1+1e-9) {
			t.Fatalf("refresh ×%.3f: %.3f LISTs became %.3f", f, now.Lists(), then.Lists())
		}
		for _, x := range []float64{now.Tails, now.Sweeps, now.Discoveries, now.ListingBytes} {
			if x < 0 || math.IsNaN(x) || math.IsInf(x, 0) {
				t.Fatalf("%+v", now)
			}
		}
	})
}

func TestInvariant9_FitKeepsTheBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sources := rapid.SliceOfN(anySource(), 1, 3).Draw(t, "sources")
		p := DefaultPrices()
		budget := math.Exp(rapid.Float64Range(-3, 9).Draw(t, "ln budget"))
		a := Fit(sources, p, budget)
		var sum, today float64
		for i := range sources {
			s, c := &sources[i], a.Settings[i]
			sum += p.Month(s.Load(c)).Total()
			today += p.Month(s.Load(s.Settings)).Total()
			if c.Refresh < s.Settings.Refresh || c.IdleRefresh < c.Refresh || c.IdleRefresh > max(Longest, s.Settings.IdleRefresh) {
				t.Fatalf("%v and %v became %v and %v", s.Settings.Refresh, s.Settings.IdleRefresh, c.Refresh, c.IdleRefresh)
			}
		}
		if math.Abs(sum-a.Cost.Total()) > 1e-6*sum+1e-9 {
			t.Fatalf("the settings cost %.4f, the answer says %.4f", sum, a.Cost.Total())
		}
		if a.Met != (sum <= budget) {
			t.Fatalf("met: %v, at %.4f of %.4f", a.Met, sum, budget)
		}
		if a.Unchanged != (today <= budget) {
			t.Fatalf("unchanged: %v, at %.4f of %.4f", a.Unchanged, today, budget)
		}
	})
}

func TestFit(t *testing.T) {
	// 17 idle streams at idle_refresh r minutes: 17×1440/r×30×0.000005 = 3.672/r
	// USD, and as much data as 1000 bytes each: 734,400/r×1000×0.09e-9 = 0.0661/r.
	s := Source{Settings: defaults(), Streams: make([]Stream, 17)}
	s.Settings.Discovery = 0
	p := DefaultPrices()
	a := Fit([]Source{s}, p, 0.2)
	// 3.7381/r ≤ 0.2 from 18.69 on: 19m, which any factor over 1.8 is rounded up
	// to; that makes refresh a little more than 1m48s, so 2m.
	if !a.Met || a.Unchanged || a.Settings[0].IdleRefresh != 19*time.Minute || a.Settings[0].Refresh != 2*time.Minute {
		t.Errorf("%+v", a)
	}
	if a = Fit([]Source{s}, p, 0.38); !a.Unchanged || a.Settings[0] != s.Settings {
		t.Errorf("0.37381 is within 0.38: %+v", a)
	}
	// Half a million GETs a day are 6 USD.
	s.Streams[0].Objects = 5e5
	if a = Fit([]Source{s}, p, 5); a.Met || a.Cost.Gets < 5.99 || a.Settings[0].Refresh != Longest {
		t.Errorf("%+v", a)
	}
}

func TestRoundUp(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{
		140 * time.Millisecond:        200 * time.Millisecond,
		time.Second:                   time.Second,
		59 * time.Second:              time.Minute,
		61 * time.Second:              75 * time.Second,
		11*time.Minute + 1:            12 * time.Minute,
		61 * time.Minute:              65 * time.Minute,
		23*time.Hour + 45*time.Minute: Day,
		Day:                           Day,
	} {
		if got := roundUp(in); got != want {
			t.Errorf("%v became %v, want %v", in, got, want)
		}
	}
}

func TestScaled(t *testing.T) {
	c := Settings{Refresh: 150 * time.Millisecond, IdleRefresh: 20 * time.Hour}
	if got := c.Scaled(0.5); got.Refresh != Shortest || got.IdleRefresh != 10*time.Hour {
		t.Errorf("half: %+v", got)
	}
	if got := c.Scaled(2); got.Refresh != 300*time.Millisecond || got.IdleRefresh != Longest {
		t.Errorf("double: %+v", got)
	}
}
