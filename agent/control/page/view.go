package page

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// Levels say how bad something is. They are names of classes and icons, too.
const (
	ok   = "ok"
	warn = "warn"
	bad  = "bad"
)

// view is what the template shows.
type view struct {
	Level, Verdict, Sign string
	Failure              bool
	At                   string
	Version              string
	Since                string
	Facts                string // in one line
	Findings             []finding
	MoreFindings         int

	Calendar *calendar
	Outputs  []outputView
	Sources  []sourceView
	Streams  []streamView
	// MoreStreams are known and not shown.
	MoreStreams int
	Parked      parkedView
	Jobs        []jobView
	JobsUnknown bool
	Options     options
	Spans       []int
}

// finding is something that needs a look.
type finding struct{ Level, Text string }

type sourceView struct {
	agent.SourceStatus
	Level string
}

type streamView struct {
	Source, Name    string
	Behind, Lag     string
	Pending, Parked int
}

type parkedView struct {
	Reasons []reasonCount
	Entries []control.ParkedEntry
	Total   int
	Skipped int
	Failure string
}

type reasonCount struct {
	Reason, Source, Output string
	Count                  int
}

type jobView struct {
	ID, State, From, To, Left, Held string
	Percent                         int
	Objects, Records                int64
	Live                            bool
}

const (
	mostFindings = 12
	mostStreams  = 10
	allStreams   = 500
	mostJobs     = 10
)

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// view makes of what was gathered what is shown.
func (p *Page) view(g *gathered, o options) *view {
	v := &view{At: stamp(g.at), Version: p.cfg.Version, Options: o, Spans: spans()}
	if g.failure != nil {
		v.Failure = true
		v.add(bad, "The agent is starting, stopping or taking another configuration, or its state can't be read: %s", g.failure)
		v.conclude()
		return v
	}
	s := g.snapshot
	if s.Agent.Since != nil {
		v.Since = stamp(*s.Agent.Since)
	}
	v.sources(s)
	for i := range s.Outputs {
		v.output(&s.Outputs[i], p.cfg.History, g.at)
	}
	if g.coverageFailure != nil {
		v.add(bad, "Coverage can't be read from the checkpoint: %s", g.coverageFailure)
	} else {
		v.Calendar = newCalendar(g.coverage, o)
		v.gaps()
	}
	v.streams(s)
	v.parked(s, g)
	v.jobs(s)
	v.Facts = fmt.Sprintf("%s, %s, %s. Checkpoint %s.", plural(len(s.Sources), "source"), plural(len(s.Streams), "stream"),
		plural(len(s.Outputs), "output"), size(s.Checkpoint.Size))
	v.conclude()
	return v
}

func (v *view) add(level, format string, args ...any) {
	v.Findings = append(v.Findings, finding{level, clean(fmt.Sprintf(format, args...))})
}

// conclude sorts the findings, worst first, and says what they come to.
func (v *view) conclude() {
	rank := map[string]int{bad: 0, warn: 1}
	slices.SortStableFunc(v.Findings, func(x, y finding) int { return cmp.Compare(rank[x.Level], rank[y.Level]) })
	v.Level, v.Verdict, v.Sign = ok, "All is well", "✔"
	if len(v.Findings) > 0 {
		v.Level, v.Verdict, v.Sign = warn, "Needs a look", "!"
		if v.Findings[0].Level == bad {
			v.Level, v.Verdict, v.Sign = bad, "Something is wrong", "✘"
		}
	}
	if n := len(v.Findings) - mostFindings; n > 0 {
		v.Findings, v.MoreFindings = v.Findings[:mostFindings], n
	}
}

func (v *view) sources(s *control.Snapshot) {
	if len(s.Streams) == 0 {
		v.add(warn, "No stream is known yet: nothing has been discovered, or nothing is there")
	}
	for i := range s.Sources {
		x := sourceView{SourceStatus: s.Sources[i], Level: ok}
		if x.State != agent.StateOK {
			x.Level = bad
			since := ""
			if x.Since != nil {
				since = " since " + stamp(*x.Since)
			}
			v.add(bad, "Source %s can't be listed%s: %s", x.Name, since, x.Error)
		} else {
			for _, t := range x.Troubles {
				x.Level = warn
				v.add(warn, "Source %s: %s since %s: %s", x.Name, t.What, stamp(t.Since), t.Error)
			}
		}
		v.Sources = append(v.Sources, x)
	}
}

// gaps says in words what the calendar shows as missing.
func (v *view) gaps() {
	c := v.Calendar
	const most = 5
	rows := 0
	for i := range c.sorted {
		r := &c.sorted[i]
		if r.missing == 0 {
			continue
		}
		if rows++; rows <= most {
			v.add(warn, "Missing: %s · %s, %s", r.Account, r.Region, r.Gaps)
		}
	}
	if rows > most {
		v.add(warn, "Missing days in %s more: see the calendar", plural(rows-most, "account and region", "accounts and regions"))
	}
}

func (v *view) streams(s *control.Snapshot) {
	n := mostStreams
	if v.Options.All {
		n = allStreams
	}
	n = min(n, len(s.Streams))
	v.MoreStreams = len(s.Streams) - n
	for i := range s.Streams[:n] {
		x := &s.Streams[i]
		y := streamView{Source: x.Source, Name: account(x.Organization, x.Account, x.AccountName) + " · " + x.Region + " · " + x.LogType,
			Behind: age(x.Behind), Lag: "nothing yet", Pending: x.Pending, Parked: x.Parked}
		if x.Lag != nil {
			y.Lag = age(*x.Lag)
		}
		v.Streams = append(v.Streams, y)
	}
}

func (v *view) parked(s *control.Snapshot, g *gathered) {
	names := make(map[progress.SourceID]string)
	for i := range s.Sources {
		names[agent.SourceID(s.Sources[i].Bucket, s.Sources[i].Prefix)] = s.Sources[i].Name
	}
	p := &v.Parked
	p.Skipped = s.Parked.Skipped
	for k, n := range s.Parked.Reasons {
		p.Total += n
		p.Reasons = append(p.Reasons, reasonCount{string(k.Reason), names[k.Source], k.Output, n})
	}
	slices.SortFunc(p.Reasons, func(x, y reasonCount) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Source, y.Source), cmp.Compare(x.Output, y.Output))
	})
	if p.Total > 0 {
		v.add(warn, "%s parked: what can't be delivered now", plural(p.Total, "object or record is", "objects or records are"))
	}
	if g.parkedFailure != nil {
		p.Failure = g.parkedFailure.Error()
		return
	}
	p.Entries = g.parked.Parked[:min(mostParked, len(g.parked.Parked))]
}

// jobs shows the re-syncs that go on, and the last ones that are over.
func (v *view) jobs(s *control.Snapshot) {
	var all []struct {
		ID       progress.ResyncID    `json:"id"`
		State    progress.ResyncState `json:"state"`
		From, To time.Time
		Objects  int64    `json:"objects"`
		Records  int64    `json:"records"`
		Share    float64  `json:"share"`
		Left     float64  `json:"left_seconds"`
		Held     []string `json:"held_outputs"`
	}
	if json.Unmarshal(s.Jobs, &all) != nil {
		v.JobsUnknown = true
		return
	}
	var live, over []jobView
	for i := range all {
		j := &all[i]
		x := jobView{ID: fmt.Sprint(j.ID), State: string(j.State), From: stamp(j.From), To: stamp(j.To),
			Percent: int(100 * max(0, min(1, j.Share))), Objects: j.Objects, Records: j.Records}
		if x.Live = j.State == progress.ResyncQueued || j.State == progress.ResyncRunning; !x.Live {
			over = append(over, x)
			continue
		}
		if j.Left > 0 {
			x.Left = age(int64(j.Left))
		}
		if len(j.Held) > 0 {
			x.Held = "waits for " + strings.Join(j.Held, ", ")
		}
		live = append(live, x)
	}
	slices.Reverse(over)
	v.Jobs = append(live, over...)
	v.Jobs = v.Jobs[:min(mostJobs, len(v.Jobs))]
}
