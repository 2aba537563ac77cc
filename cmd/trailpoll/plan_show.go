package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/plan"
)

// topStreams is how many streams of a source are shown without --all.
const topStreams = 10

// table shows the plan to a person.
func (p *planned) table(w io.Writer) error {
	var b strings.Builder
	for i := range p.sources {
		p.source(&b, &p.sources[i])
	}
	if len(p.usable) == 0 {
		b.WriteString("no source could be listed\n")
		_, err := io.WriteString(w, b.String())
		return err
	}
	p.compare(&b)
	if p.answer != nil {
		p.budget(&b)
	}
	p.notes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// source shows one source with its dearest streams.
func (p *planned) source(b *strings.Builder, s *plannedSource) {
	where := s.conf.Bucket.Name
	if s.conf.Bucket.Prefix != "" {
		where += "/" + s.conf.Bucket.Prefix
	}
	if s.err != nil {
		fmt.Fprintf(b, "source %s, %s: could not be listed\n\n", s.conf.Name, where)
		return
	}
	accounts := make(map[string]bool)
	for i := range s.plan.Streams {
		accounts[s.plan.Streams[i].ID.Account] = true
	}
	fmt.Fprintf(b, "source %s, %s: %s in %s at %s\n", s.conf.Name, where,
		plural(len(s.plan.Streams), "stream"), plural(len(accounts), "account"), inUTC(s.found.At))
	fmt.Fprintf(b, "last %s looked at with %s\n\n", plural(p.flags.days, "day"), plural(s.found.Lists, "LIST"))

	rows := [][]string{{"stream", "objects/day", "data/day", "LISTs/day", "USD/month"}}
	row := func(name string, l plan.Load, usd float64) {
		rows = append(rows, []string{name, number(l.Gets), dataSize(l.Bytes), number(l.Lists()), money(usd)})
	}
	streams := p.streams(s)
	shown := len(streams)
	if !p.flags.all && shown > topStreams+1 {
		shown = topStreams
	}
	for _, x := range streams[:shown] {
		row(x.stream.ID.String(), x.load, x.usd)
	}
	if rest := streams[shown:]; len(rest) > 0 {
		var sum plan.Load
		for _, x := range rest {
			sum = sum.Plus(x.load)
		}
		row(fmt.Sprintf("%d more (--all shows them)", len(rest)), sum, p.prices.Month(sum).Total())
	}
	if d := s.plan.DiscoveryLoad(s.plan.Settings); d.Discoveries > 0 {
		rows = append(rows, []string{"discovery", "", "", number(d.Lists()), money(p.prices.Month(d).Total())})
	}
	all := s.plan.Load(s.plan.Settings)
	row("all", all, p.prices.Month(all).Total())
	grid(b, rows, 1)
	b.WriteByte('\n')
}

// streamCost is a stream with its share.
type streamCost struct {
	stream *plan.Stream
	load   plan.Load
	usd    float64
}

// streams returns the streams of a source, the dearest first.
func (p *planned) streams(s *plannedSource) []streamCost {
	all := make([]streamCost, len(s.plan.Streams))
	for i := range all {
		st := &s.plan.Streams[i]
		l := s.plan.StreamLoad(st, s.plan.Settings)
		all[i] = streamCost{st, l, p.prices.Month(l).Total()}
	}
	slices.SortStableFunc(all, func(a, b streamCost) int { return cmp.Compare(b.usd, a.usd) })
	return all
}

// compare sets the settings side by side.
func (p *planned) compare(b *strings.Builder) {
	rows := [][]string{{"settings", "refresh", "idle_refresh", "LISTs/day", "GETs/day", "KMS/day", "data/month", "requests", "KMS", "transfer", "USD/month"}}
	for _, c := range p.columns() {
		rows = append(rows, []string{
			c.name,
			common(c.settings, func(s plan.Settings) time.Duration { return s.Refresh }),
			common(c.settings, func(s plan.Settings) time.Duration { return s.IdleRefresh }),
			number(c.load.Lists()), number(c.load.Gets), number(c.load.KMS),
			dataSize((c.load.Bytes + c.load.ListingBytes) * plan.MonthDays),
			money(c.cost.Requests()), money(c.cost.KMS), money(c.cost.Transfer), money(c.cost.Total()),
		})
	}
	grid(b, rows, 1)
	b.WriteByte('\n')
}

// common returns a duration that is the same in all settings.
func common(all []plan.Settings, of func(plan.Settings) time.Duration) string {
	for _, s := range all {
		if of(s) != of(all[0]) {
			return "varies"
		}
	}
	return config.Duration(of(all[0])).String()
}

// budget says which settings keep within the budget, or why none do.
func (p *planned) budget(b *strings.Builder) {
	a := p.answer
	fmt.Fprintf(b, "Budget of %s USD a month: ", money(a.Budget))
	switch {
	case a.Unchanged:
		fmt.Fprintf(b, "today's settings keep within it (%s).\n\n", money(a.Cost.Total()))
	case a.Met:
		fmt.Fprintf(b, "these settings would keep within it (%s):\n", money(a.Cost.Total()))
		for i, s := range a.Settings {
			fmt.Fprintf(b, "  %s: refresh = %q, idle_refresh = %q\n", p.usable[i].Name,
				config.Duration(s.Refresh), config.Duration(s.IdleRefresh))
		}
		b.WriteString("An object is then found that long after it comes: refresh while its stream is active,\nidle_refresh at most when it was quiet.\n\n")
	default:
		lists := a.Load.Lists()
		part := func(of float64) float64 {
			if lists == 0 {
				return 0
			}
			return a.Cost.Lists * of / lists
		}
		fmt.Fprintf(b, "no refresh and idle_refresh keep within it. Listing each stream\n"+
			"once a day would still cost %s: GETs %s, KMS %s, data %s, sweeps %s, discovery %s, the rest %s.\n",
			money(a.Cost.Total()), money(a.Cost.Gets), money(a.Cost.KMS), money(a.Cost.Transfer),
			money(part(a.Load.Sweeps)), money(part(a.Load.Discoveries)), money(part(a.Load.Tails)))
		if a.Cost.Gets > a.Budget {
			b.WriteString("GETs alone cost more, and every object is read once: only fewer streams cost less.\n")
		}
		if part(a.Load.Discoveries) > a.Cost.Total()/4 {
			b.WriteString("A longer discovery, or pinned accounts, log_types and regions, cost less.\n")
		}
		b.WriteByte('\n')
	}
}

// notes says what the figures rest on.
func (p *planned) notes(b *strings.Builder) {
	x := p.prices
	price := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	fmt.Fprintf(b, "Prices assumed, in USD: LIST %s, GET %s, KMS %s for 1,000; data that leaves AWS %s a GB.\n",
		price(x.List), price(x.Get), price(x.KMS), price(x.Transfer))
	b.WriteString("A month has 30 days; free allowances are not taken off. --price takes other prices.\n")
	var all plan.Load
	for i := range p.usable {
		all = all.Plus(p.usable[i].Load(p.usable[i].Settings))
	}
	fmt.Fprintf(b, "Data a month: objects as stored, today %s, and the answers to LISTs, today %s.\n",
		dataSize(all.Bytes*plan.MonthDays), dataSize(all.ListingBytes*plan.MonthDays))
	if p.flags.kms == "on" {
		b.WriteString("KMS: one Decrypt for each GET. An S3 Bucket Key makes them far fewer.\n")
	} else {
		b.WriteString("KMS is not counted. If the objects are under SSE-KMS, --kms on counts one Decrypt for each GET.\n")
	}
	for i := range p.sources {
		s := &p.sources[i]
		if s.err != nil {
			continue
		}
		if n := s.found.Extrapolated; n > 0 {
			fmt.Fprintf(b, "source %s: of %s only parts were listed.\n", s.conf.Name, plural(n, "busy stream"))
		}
		if s.plan.Load(s.plan.Settings).Capped {
			fmt.Fprintf(b, "source %s: max_lists_per_minute = %d allows fewer LISTs than refresh and idle_refresh ask for,\nso that objects are found later.\n",
				s.conf.Name, s.plan.Settings.MaxListsPerMinute)
		}
	}
}

// grid writes rows in columns, the first left of them aligned to the left and
// the others to the right.
func grid(b *strings.Builder, rows [][]string, left int) {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i < left {
				line.WriteString(c + pad)
			} else {
				line.WriteString(pad + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
}

// plural writes a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(float64(n)) + " " + noun + "s"
}

// number writes a whole number in groups of three digits; what is below 10 and
// not whole gets one digit behind the point.
func number(x float64) string {
	if x < 9.95 && math.Abs(x-math.Round(x)) >= 0.05 {
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return groups(strconv.FormatFloat(math.Round(x), 'f', 0, 64))
}

func groups(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// money writes dollars with cents.
func money(usd float64) string {
	whole, cents, _ := strings.Cut(strconv.FormatFloat(usd, 'f', 2, 64), ".")
	return groups(whole) + "." + cents
}

// dataSize writes a size in the decimal units that AWS bills in.
func dataSize(x float64) string {
	for _, u := range [...]struct {
		name string
		size float64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if x >= u.size {
			return strconv.FormatFloat(x/u.size, 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(math.Round(x), 'f', 0, 64) + " B"
}

// The JSON object.
type (
	planJSON struct {
		Schema   int            `json:"schema"`
		Days     int            `json:"days"`
		KMS      bool           `json:"kms"`
		Prices   pricesJSON     `json:"prices"`
		Sources  []sourceJSON   `json:"sources"`
		Settings []settingsJSON `json:"settings"`
		Budget   *budgetJSON    `json:"budget,omitempty"`
	}
	pricesJSON struct {
		List      float64 `json:"list_per_1000_usd"`
		Get       float64 `json:"get_per_1000_usd"`
		KMS       float64 `json:"kms_per_1000_usd"`
		Transfer  float64 `json:"transfer_per_gb_usd"`
		MonthDays int     `json:"month_days"`
	}
	sourceJSON struct {
		Name           string        `json:"name"`
		Bucket         string        `json:"bucket"`
		Prefix         string        `json:"prefix,omitempty"`
		Error          string        `json:"error,omitempty"`
		Remedy         string        `json:"remedy,omitempty"`
		TakenAt        string        `json:"taken_at,omitempty"`
		SurveyLists    int           `json:"survey_lists"`
		DiscoveryLists int           `json:"discovery_lists"`
		Extrapolated   int           `json:"streams_extrapolated"`
		Capped         bool          `json:"capped"`
		Failed         []failureJSON `json:"failed"`
		Load           loadJSON      `json:"load"`
		Streams        []streamJSON  `json:"streams"`
	}
	failureJSON struct {
		Prefix string `json:"prefix"`
		Error  string `json:"error"`
		Remedy string `json:"remedy,omitempty"`
	}
	streamJSON struct {
		Organization string   `json:"organization,omitempty"`
		Account      string   `json:"account"`
		Region       string   `json:"region"`
		LogType      string   `json:"log_type"`
		LastObject   string   `json:"last_object,omitempty"`
		Load         loadJSON `json:"load"`
	}
	loadJSON struct {
		Lists     float64 `json:"lists_per_day"`
		Tails     float64 `json:"tail_lists_per_day"`
		Sweeps    float64 `json:"sweep_lists_per_day"`
		Discovery float64 `json:"discovery_lists_per_day"`
		Gets      float64 `json:"gets_per_day"`
		KMS       float64 `json:"kms_calls_per_day"`
		Bytes     float64 `json:"month_object_bytes"`
		Listing   float64 `json:"month_listing_bytes"`
		Requests  float64 `json:"month_requests_usd"`
		KMSUSD    float64 `json:"month_kms_usd"`
		Transfer  float64 `json:"month_transfer_usd"`
		Total     float64 `json:"month_usd"`
	}
	settingsJSON struct {
		Name    string        `json:"name"`
		Sources []refreshJSON `json:"sources"`
		Load    loadJSON      `json:"load"`
	}
	refreshJSON struct {
		Name    string  `json:"name"`
		Refresh float64 `json:"refresh_seconds"`
		Idle    float64 `json:"idle_refresh_seconds"`
	}
	budgetJSON struct {
		Budget    float64       `json:"month_budget_usd"`
		Met       bool          `json:"met"`
		Unchanged bool          `json:"unchanged"`
		Sources   []refreshJSON `json:"sources"`
		Load      loadJSON      `json:"load"`
	}
)

// json shows the plan to a program.
func (p *planned) json(w io.Writer) error {
	x := p.prices
	out := planJSON{
		Schema: 1, Days: p.flags.days, KMS: p.flags.kms == "on",
		Prices:  pricesJSON{x.List, x.Get, x.KMS, x.Transfer, plan.MonthDays},
		Sources: []sourceJSON{}, Settings: []settingsJSON{},
	}
	for i := range p.sources {
		out.Sources = append(out.Sources, p.sourceJSON(&p.sources[i]))
	}
	if len(p.usable) > 0 {
		for _, c := range p.columns() {
			out.Settings = append(out.Settings, settingsJSON{c.name, p.refreshes(c.settings), p.load(c.load)})
		}
	}
	if a := p.answer; a != nil {
		out.Budget = &budgetJSON{a.Budget, a.Met, a.Unchanged, p.refreshes(a.Settings), p.load(a.Load)}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(out)
}

func (p *planned) sourceJSON(s *plannedSource) sourceJSON {
	out := sourceJSON{
		Name: s.conf.Name, Bucket: s.conf.Bucket.Name, Prefix: s.conf.Bucket.Prefix,
		Failed: []failureJSON{}, Streams: []streamJSON{},
	}
	if s.err != nil {
		out.Error, out.Remedy = s.err.Error(), fault.HintOf(s.err)
		return out
	}
	out.TakenAt, out.SurveyLists = inUTC(s.found.At), s.found.Lists
	out.DiscoveryLists, out.Extrapolated = s.found.DiscoveryLists, s.found.Extrapolated
	for _, f := range s.found.Failed {
		out.Failed = append(out.Failed, failureJSON{f.Prefix, f.Err.Error(), fault.HintOf(f.Err)})
	}
	all := s.plan.Load(s.plan.Settings)
	out.Load, out.Capped = p.load(all), all.Capped
	for _, x := range p.streams(s) {
		id := x.stream.ID
		j := streamJSON{Organization: id.Organization, Account: id.Account, Region: id.Region, LogType: id.LogType, Load: p.load(x.load)}
		if !x.stream.Last.IsZero() {
			j.LastObject = inUTC(x.stream.Last)
		}
		out.Streams = append(out.Streams, j)
	}
	return out
}

func (p *planned) refreshes(all []plan.Settings) []refreshJSON {
	out := make([]refreshJSON, len(all))
	for i, s := range all {
		out[i] = refreshJSON{p.usable[i].Name, s.Refresh.Seconds(), s.IdleRefresh.Seconds()}
	}
	return out
}

func (p *planned) load(l plan.Load) loadJSON {
	c := p.prices.Month(l)
	// Figures are estimates: more digits would only pretend.
	count := func(x float64) float64 { return math.Round(x*10) / 10 }
	usd := func(x float64) float64 { return math.Round(x*1e4) / 1e4 }
	return loadJSON{
		Lists: count(l.Lists()), Tails: count(l.Tails), Sweeps: count(l.Sweeps), Discovery: count(l.Discoveries),
		Gets: count(l.Gets), KMS: count(l.KMS),
		Bytes: math.Round(l.Bytes * plan.MonthDays), Listing: math.Round(l.ListingBytes * plan.MonthDays),
		Requests: usd(c.Requests()), KMSUSD: usd(c.KMS), Transfer: usd(c.Transfer), Total: usd(c.Total()),
	}
}
