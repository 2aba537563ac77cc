package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/control"
)

// calendar is account·region × day.
type calendar struct {
	Months []month
	Days   []calendarDay
	Rows   []calendarRow
	More   int // rows that are not shown
	Total  int
	Legend []legend

	sorted []calendarRow
}

type month struct {
	Name string
	Days int
}

type calendarDay struct{ Date, Day, Before string }

type calendarRow struct {
	Account, Region, Source string

	Cells []calendarCell
	Gaps  string // the missing days in words
	Sum   bool   // all rows together

	missing, parked int
}

// calendarCell is one day: its class, the letter that says the same without
// colour, and what a screen reader reads.
type calendarCell struct{ State, Letter, Text string }

type legend struct{ State, Letter, Text string }

// Limits of what one page shows: cells, and rows unless all are asked for.
const (
	mostCells = 30_000
	usualRows = 25
)

func letters() []legend {
	return []legend{
		{string(agent.DayMissing), "M", "missing: found and not settled, or not yet listed to its end"},
		{string(agent.DayParked), "P", "parked: some of it can't be delivered now"},
		{string(agent.DaySettled), "·", "settled: all that was found has been delivered, or set aside knowingly"},
		{string(agent.DayEmpty), "–", "empty: listed to its end, and nothing was in the bucket"},
		{string(agent.DayNotCollected), "", "not collected: before the start"},
	}
}

// newCalendar sorts the rows, worst first, and shows as many as can be read.
func newCalendar(c *control.Coverage, o options) *calendar {
	k := &calendar{Legend: letters(), Total: len(c.Rows)}
	for _, d := range c.Days {
		name := d[:min(7, len(d))]
		if n := len(k.Months); n == 0 || k.Months[n-1].Name != name {
			k.Months = append(k.Months, month{Name: name})
		}
		k.Months[len(k.Months)-1].Days++
		k.Days = append(k.Days, calendarDay{Date: d, Before: d[:min(8, len(d))], Day: d[min(8, len(d)):]})
	}
	letter, rank := make(map[agent.DayState]string), make(map[agent.DayState]int)
	for i, l := range k.Legend {
		letter[agent.DayState(l.State)], rank[agent.DayState(l.State)] = l.Letter, i
	}
	worst := make([]map[agent.DayState]int, len(c.Days))
	for i := range worst {
		worst[i] = make(map[agent.DayState]int)
	}
	for i := range c.Rows {
		r := &c.Rows[i]
		x := calendarRow{Account: account(r.Organization, r.Account, r.AccountName), Region: clean(r.Region), Source: r.Source}
		for j := range r.Cells {
			cell := &r.Cells[j]
			worst[j][cell.State]++
			switch cell.State {
			case agent.DayMissing:
				x.missing++
			case agent.DayParked:
				x.parked++
			}
			x.Cells = append(x.Cells, calendarCell{clean(string(cell.State)), letter[cell.State], describe(cell)})
		}
		x.Gaps = gapsOf(c.Days, r.Cells)
		k.sorted = append(k.sorted, x)
	}
	slices.SortStableFunc(k.sorted, func(x, y calendarRow) int {
		return cmp.Or(cmp.Compare(y.missing, x.missing), cmp.Compare(y.parked, x.parked))
	})
	n := usualRows
	if o.All {
		n = len(k.sorted)
	}
	n = min(n, max(1, mostCells/max(1, len(c.Days))), len(k.sorted))
	k.More = len(k.sorted) - n
	if len(k.sorted) > 1 {
		k.Rows = append(k.Rows, sum(worst, k.Legend))
	}
	k.Rows = append(k.Rows, k.sorted[:n]...)
	return k
}

// sum is one row of the worst state of each day, so that one gap among hundreds
// of rows is seen.
func sum(days []map[agent.DayState]int, order []legend) calendarRow {
	r := calendarRow{Account: "All together, the worst of each day", Sum: true}
	for _, d := range days {
		for _, l := range order {
			if n := d[agent.DayState(l.State)]; n > 0 {
				r.Cells = append(r.Cells, calendarCell{l.State, l.Letter, strings.ReplaceAll(l.State, "-", " ") + " in " + number(n)})
				break
			}
		}
	}
	return r
}

// describe says a cell in words.
func describe(c *agent.CoverageCell) string {
	text := clean(strings.ReplaceAll(string(c.State), "-", " "))
	for _, x := range []struct {
		n    int64
		what string
	}{{int64(c.Pending), "pending"}, {int64(c.Parked), "parked"}, {c.Objects, "objects settled"}} {
		if x.n > 0 {
			text += ", " + number(x.n) + " " + x.what
		}
	}
	return text
}

// gapsOf writes the missing days of a row as ranges, the newest first, at most
// three of them.
func gapsOf(days []string, cells []agent.CoverageCell) string {
	var ranges []string
	pending := 0
	for end := min(len(cells), len(days)) - 1; end >= 0; end-- {
		if cells[end].State != agent.DayMissing {
			continue
		}
		begin := end
		pending += cells[end].Pending
		for begin > 0 && cells[begin-1].State == agent.DayMissing {
			begin--
			pending += cells[begin].Pending
		}
		if begin == end {
			ranges = append(ranges, days[end])
		} else {
			ranges = append(ranges, fmt.Sprintf("%s to %s (%d days)", days[begin], days[end], end-begin+1))
		}
		end = begin
	}
	if len(ranges) == 0 {
		return ""
	}
	const most = 3
	text := strings.Join(ranges[:min(most, len(ranges))], ", ")
	if n := len(ranges) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	if pending > 0 {
		text += "; " + plural(pending, "object") + " pending"
	}
	return text
}

// account names an account.
func account(organization, id, name string) string {
	text := id
	if name != "" {
		text = name + " (" + id + ")"
	}
	if organization != "" {
		text = organization + " · " + text
	}
	return clean(text)
}
