package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// DayBook is the part of a checkpoint that remembers how many objects of each
// day were settled, also of days whose objects it has forgotten.
type DayBook interface {
	// Days returns the counts of a source's streams for an output, by the day
	// of the object's folder, YYYY-MM-DD, from a day on.
	Days(id progress.SourceID, output string, from time.Time) (map[progress.Stream]map[string]int64, error)
}

// Coverage says how the days of each account and region stand.
type Coverage struct {
	Days []string      `json:"days"` // YYYY-MM-DD, UTC, ascending; the last is today
	Rows []CoverageRow `json:"rows"`
}

// CoverageRow is one account and region of a source, all its log types and
// outputs together.
type CoverageRow struct {
	Source       string         `json:"source"`
	Organization string         `json:"organization"`
	Account      string         `json:"account"`
	AccountName  string         `json:"account_name,omitempty"`
	Region       string         `json:"region"`
	Cells        []CoverageCell `json:"cells"` // one for each day
}

// CoverageCell is one day of a row.
type CoverageCell struct {
	State DayState `json:"state"`
	// Objects were settled, for the output that has fewest.
	Objects int64 `json:"objects"`
	Parked  int   `json:"parked"`  // objects and records, for all outputs
	Pending int   `json:"pending"` // objects found and not settled, for the output that has most
}

// DayState is how a day stands.
type DayState string

const (
	// DaySettled: it was listed to its end, and all that was found is settled.
	DaySettled DayState = "settled"
	// DayMissing: some of it was found and is not settled, or it has not been
	// listed to its end, for one of the outputs at least.
	DayMissing DayState = "missing"
	// DayParked: some of it is parked, and all else settled.
	DayParked DayState = "parked"
	// DayEmpty: it was listed to its end, and nothing was there.
	DayEmpty DayState = "empty"
	// DayNotCollected: it lies before the start.
	DayNotCollected DayState = "not-collected"
)

// rowKey is what a row is of.
type rowKey struct {
	source                        *source
	organization, account, region string
}

// laneDays is what is known of the days of one lane.
type laneDays struct {
	start   time.Time // what lies before it is not collected
	done    time.Time // every day that ends before it has been listed to its end
	settled map[string]int64
	pending map[string]int
}

// Coverage returns how the last days stand, today included. It takes each lock
// for a moment, as Status does.
func (a *Agent) Coverage(days int) (*Coverage, error) {
	// Outputs and sources may have clocks of their own, by seconds: the first
	// source's decides what today is.
	today := a.sources[0].now().Truncate(daily)
	from := today.Add(-time.Duration(days-1) * daily)
	c := &Coverage{Days: make([]string, days), Rows: []CoverageRow{}}
	for i := range days {
		c.Days[i] = from.Add(time.Duration(i) * daily).Format(time.DateOnly)
	}
	parked, err := a.parkedDays()
	if err != nil {
		return nil, err
	}
	for _, s := range a.sources {
		counts := make(map[string]map[progress.Stream]map[string]int64)
		if book, ok := a.cfg.Checkpoint.(DayBook); ok {
			for _, d := range s.outputs {
				if counts[d.cfg.Name], err = book.Days(s.id, d.cfg.Name, from); err != nil {
					return nil, err
				}
			}
		}
		rows := make(map[rowKey]map[string][]laneDays) // lanes by output
		for _, st := range s.all() {
			k := rowKey{s, st.id.Organization, st.id.Account, st.id.Region}
			if rows[k] == nil {
				rows[k] = make(map[string][]laneDays)
			}
			st.mu.Lock()
			for _, l := range st.lanes {
				x := l.days()
				x.settled = counts[l.id.Output][st.id]
				rows[k][l.id.Output] = append(rows[k][l.id.Output], x)
			}
			st.mu.Unlock()
		}
		for k, outputs := range rows {
			r := CoverageRow{
				Source: s.cfg.Name, Organization: k.organization, Account: k.account,
				AccountName: s.cfg.AccountInfo[k.account].Name, Region: k.region, Cells: make([]CoverageCell, days),
			}
			for i := range r.Cells {
				r.Cells[i] = coverDay(from.Add(time.Duration(i)*daily), outputs, parked[k])
			}
			c.Rows = append(c.Rows, r)
		}
	}
	slices.SortFunc(c.Rows, func(x, y CoverageRow) int {
		return cmp.Or(cmp.Compare(x.Source, y.Source), cmp.Compare(x.Organization, y.Organization),
			cmp.Compare(x.Account, y.Account), cmp.Compare(x.Region, y.Region))
	})
	return c, nil
}

// parkedDays counts what is parked, by row and day.
func (a *Agent) parkedDays() (map[rowKey]map[string]int, error) {
	all := make(map[rowKey]map[string]int)
	book, ok := a.cfg.Checkpoint.(ParkedBook)
	if !ok {
		return all, nil
	}
	byID := make(map[progress.SourceID]*source, len(a.sources))
	for _, s := range a.sources {
		byID[s.id] = s
	}
	err := book.Parked(func(e progress.Entry) bool {
		s := byID[e.Lane.Source]
		if s == nil || !e.Skipped.IsZero() {
			return true
		}
		k := rowKey{s, e.Lane.Stream.Organization, e.Lane.Stream.Account, e.Lane.Stream.Region}
		if all[k] == nil {
			all[k] = make(map[string]int)
		}
		all[k][dayName(e.Position)]++
		return true
	})
	return all, err
}

// dayName returns the day of a position's folder, YYYY-MM-DD; "" if it has none.
func dayName(position string) string {
	const n = len("2006/01/02")
	if len(position) < n {
		return ""
	}
	return position[:4] + "-" + position[5:7] + "-" + position[8:n]
}

// days returns what the lane knows of its days; the stream's mutex is held.
func (l *lane) days() laneDays {
	s := l.of.source
	d := laneDays{start: l.begin.Start, done: l.seen.complete, pending: make(map[string]int)}
	// A pass that is under way has listed what lies before its place.
	if t, ok := cloudtrail.Instant(l.listed); ok {
		d.done = later(d.done, t)
	}
	// What the next poll brings is not missing: today counts as listed as long
	// as the polls are in time.
	if now := s.now(); now.Sub(l.seen.complete) <= 2*s.cfg.IdleRefresh {
		d.done = later(d.done, now.Add(2*daily))
	}
	for position := range l.open {
		d.pending[dayName(position)]++
	}
	return d
}

// coverDay says how one day of a row stands.
func coverDay(day time.Time, outputs map[string][]laneDays, parked map[string]int) CoverageCell {
	end, name := day.Add(daily), day.Format(time.DateOnly)
	c := CoverageCell{State: DayNotCollected, Objects: -1, Parked: parked[name]}
	missing := false
	for _, lanes := range outputs {
		settled, pending, collected := int64(0), 0, false
		for _, l := range lanes {
			settled += l.settled[name]
			pending += l.pending[name]
			if end.After(l.start) {
				collected = true
				missing = missing || l.done.Before(end)
			}
		}
		if !collected && settled == 0 && pending == 0 {
			continue // this output began later
		}
		c.State = DayEmpty
		c.Pending = max(c.Pending, pending)
		if c.Objects < 0 || settled < c.Objects {
			c.Objects = settled
		}
	}
	c.Objects = max(c.Objects, 0)
	switch {
	case missing || c.Pending > 0:
		c.State = DayMissing
	case c.Parked > 0:
		c.State = DayParked
	case c.Objects > 0:
		c.State = DaySettled
	}
	return c
}
