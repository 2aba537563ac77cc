package plan

import "time"

// Answer is what there is to say of a budget.
type Answer struct {
	Budget float64 // USD a month, for all sources together
	// Met: Settings keep within the budget. If not, no refresh and
	// idle_refresh do, and Settings are the longest that there are.
	Met bool
	// Unchanged: today's settings do.
	Unchanged bool
	Settings  []Settings // one a source, in their order
	Load      Load       // with Settings
	Cost      Cost
}

// Fit looks for the shortest refresh and idle_refresh that keep all sources
// together within a budget of so many dollars a month. Those of all sources
// are made longer by the same factor, and rounded up to what one would write.
func Fit(sources []Source, p Prices, budget float64) Answer {
	today := func(c Settings, _ float64) Settings { return c }
	a := try(sources, p, budget, 1, today)
	if a.Met {
		a.Unchanged = true
		return a
	}
	lo, hi := 1.0, 1.0
	for i := range sources {
		hi = max(hi, float64(Longest)/float64(max(sources[i].Settings.Refresh, time.Millisecond)))
	}
	best := try(sources, p, budget, hi, longer)
	if !best.Met {
		return best
	}
	// The cost never rises with the factor.
	for range 40 {
		mid := (lo + hi) / 2
		if a = try(sources, p, budget, mid, longer); a.Met {
			best, hi = a, mid
		} else {
			lo = mid
		}
	}
	return best
}

func try(sources []Source, p Prices, budget, f float64, change func(Settings, float64) Settings) Answer {
	a := Answer{Budget: budget}
	for i := range sources {
		c := change(sources[i].Settings, f)
		a.Settings = append(a.Settings, c)
		a.Load = a.Load.Plus(sources[i].Load(c))
	}
	a.Cost = p.Month(a.Load)
	a.Met = a.Cost.Total() <= budget
	return a
}

// longer is Scaled, rounded up.
func longer(c Settings, f float64) Settings {
	c = c.Scaled(f)
	c.Refresh, c.IdleRefresh = roundUp(c.Refresh), roundUp(c.IdleRefresh)
	return c
}

// roundUp returns the next duration that reads well.
func roundUp(d time.Duration) time.Duration {
	for _, r := range [...]struct{ below, unit time.Duration }{
		{time.Second, 100 * time.Millisecond},
		{10 * time.Second, time.Second},
		{time.Minute, 5 * time.Second},
		{10 * time.Minute, 15 * time.Second},
		{time.Hour, time.Minute},
		{6 * time.Hour, 5 * time.Minute},
		{Longest, 30 * time.Minute},
	} {
		if d < r.below {
			return (d + r.unit - 1) / r.unit * r.unit
		}
	}
	return d
}
