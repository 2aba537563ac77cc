package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"
)

// bar is one bar of the chart.
type bar struct {
	label, colour string
	size          float64
}

// The chart's measures, in pixels, and its colours, which show on light and
// dark ground.
const (
	barLeft, barRoom   = 250, 400
	barHigh, groupGap  = 16, 34
	chartWidth         = barLeft + barRoom + 130
	agentColour        = "#2f7ed8"
	bareColour, greyed = "#8c9aa8", "#b8a06a"
)

// chart draws CPU-seconds per million records, a group of bars for each work.
func (r *report) chart() []byte {
	type group struct {
		title string
		bars  []bar
	}
	var groups []group
	most := 0.0
	for i := range r.Works {
		m := &r.Works[i]
		per := 1e6 / float64(m.Records)
		title := fmt.Sprintf("%s — ratio %.2f", m.Name, m.Ratio.Median)
		if m.Reach > 0 {
			title += fmt.Sprintf(", to reach %.2f", m.Reach)
		}
		g := group{title: title, bars: []bar{
			{label: "trailpoll", size: m.Agent.CPU * per, colour: agentColour},
			{label: "bare loop", size: m.Bare.CPU * per, colour: bareColour},
		}}
		for j := range m.Others {
			g.bars = append(g.bars, bar{label: m.Others[j].Name, size: m.Others[j].perMillion(), colour: greyed})
		}
		for _, b := range g.bars {
			most = max(most, b.size)
		}
		groups = append(groups, g)
	}
	var b strings.Builder
	y := 40
	for _, g := range groups {
		text(&b, 10, y, "bold", "start", g.title)
		y += 8
		for _, x := range g.bars {
			width := x.size / most * barRoom
			text(&b, barLeft-8, y+12, "normal", "end", x.label)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", barLeft, y, width, barHigh-3, x.colour)
			text(&b, barLeft+int(width)+6, y+12, "normal", "start", fmt.Sprintf("%.1f", x.size))
			y += barHigh
		}
		y += groupGap
	}
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">
<title>CPU-seconds per million records, less is better</title>
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s%s</svg>
`, chartWidth, y, headline(), b.String())
}

func headline() string {
	var b strings.Builder
	text(&b, 10, 18, "normal", "start", "CPU-seconds per million records, less is better")
	return b.String()
}

func text(b *strings.Builder, x, y int, weight, anchor, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="%s" text-anchor="%s" fill="#222222">`, x, y, weight, anchor)
	_ = xml.EscapeText(b, []byte(s)) // a strings.Builder takes all
	b.WriteString("</text>\n")
}

// draw writes the chart.
func (r *report) draw(file string) error {
	return os.WriteFile(file, r.chart(), 0o644)
}
