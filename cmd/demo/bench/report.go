package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the whole result. Times are seconds, sizes bytes.
type report struct {
	Schema      int        `json:"schema"`
	Began       time.Time  `json:"began"`
	WallSeconds float64    `json:"wall_seconds"`
	Machine     machine    `json:"machine"`
	Pairs       int        `json:"pairs"`
	Memory      string     `json:"memory"` // the agent's setting
	Works       []measured `json:"works"`
	Waits       []waited   `json:"waits,omitempty"`
	Growth      []growth   `json:"growth,omitempty"`
	Idle        *idleCost  `json:"idle,omitempty"`
}

const explanation = `Agent:     trailpoll run --once from an empty state, %d downloads at once, memory %q,
           %d connections, batches of %d records or %d MiB, NDJSON over plain HTTP unless it says otherwise.
Bare loop: lists, gets (aws-sdk-go-v2), inflates (klauspost/compress), splits (jsontext), posts plain NDJSON
           with the same downloads, connections and batches; no state, no retry, one receiver.
CPU:       seconds, user and system, of the program alone, for a million records of the bucket. Medians of
           %d runs. Ratio: agent's CPU ÷ bare loop's, run in pairs one after the other; median (least–most).
`

// print writes the table.
func (r *report) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s, %d CPUs, %s, load %s; %s, %.0f s\n\n", r.Machine.CPU, r.Machine.Platform, r.Machine.CPUs,
		r.Machine.Go, r.Machine.Load, r.Began.Format("2006-01-02 15:04 MST"), r.WallSeconds)
	fmt.Fprintf(&b, explanation+"\n", downloads, r.Memory, connections, batchRecords, batchBytes>>20, r.Pairs)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "work\trecords\tB each\tagent CPU/M\tbare CPU/M\tratio\treach\tagent wall s\tbare wall s\tagent peak MiB\tbare peak MiB\tagent GETs\t")
	for i := range r.Works {
		m := &r.Works[i]
		per := 1e6 / float64(m.Records)
		reach := "–"
		if m.Reach > 0 {
			reach = fmt.Sprintf("≤ %.2f", m.Reach)
		}
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f (%.2f–%.2f)\t%s\t%.2f\t%.2f\t%s\t%s\t%d\t\n", m.Name, m.Records, m.RecordBytes,
			m.Agent.CPU*per, m.Bare.CPU*per, m.Ratio.Median, m.Ratio.Min, m.Ratio.Max, reach,
			m.Agent.Wall, m.Bare.Wall, mebibytes(m.Agent.Peak), mebibytes(m.Bare.Peak), m.Agent.Gets)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	r.printRest(&b)
	if r.Idle != nil {
		fmt.Fprintf(&b, "\n%v", r.Idle)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printRest writes what is not measured beside the bare loop.
func (r *report) printRest(b *strings.Builder) {
	fmt.Fprintf(b, "Peak memory to reach with memory = \"32MiB\": ≤ %s MiB.\n", mebibytes(peakReach))
	if share, ok := r.rulesShare(); ok {
		fmt.Fprintf(b, "Ten filter rules take %.0f %% of the throughput (reach: %.0f %%).\n", 100*share, 100*rulesReach)
	}
	for i := range r.Works {
		for j := range r.Works[i].Others {
			o := &r.Works[i].Others[j]
			fmt.Fprintf(b, "%s by %s: %.1f CPU-seconds per million records (measured on %d).\n", r.Works[i].Name, o.Name, o.perMillion(), o.Records)
		}
	}
	for i := range r.Waits {
		w := &r.Waits[i]
		fmt.Fprintf(b, "%s: %.0f objects/s, %.0f %% of downloads ÷ latency", w.Name, w.Rate, 100*w.Share)
		if w.Reach > 0 {
			fmt.Fprintf(b, " (reach: %.0f %%)", 100*w.Reach)
		}
		fmt.Fprintf(b, "; the bare loop %.0f; peak %s MiB.\n", w.BareRate, mebibytes(w.Peak))
	}
	for i := range r.Growth {
		g := &r.Growth[i]
		fmt.Fprintf(b, "%s: CPU-seconds per million records, less an idle pass:", g.Name)
		for j := range g.Points {
			fmt.Fprintf(b, " %.1f at %d,", g.Points[j].perMillion(), g.Points[j].At)
		}
		fmt.Fprintf(b, " last ÷ first %.2f (%.2f–%.2f; reach: ≤ %.2f).\n", g.Ratio, g.Least, g.Most, g.Reach)
	}
}

// rulesShare is how much of the agent's throughput its filters take, by the CPU
// time; ok is false where not both works were measured.
func (r *report) rulesShare() (share float64, ok bool) {
	costs := map[string]float64{}
	for i := range r.Works {
		costs[r.Works[i].Name] = r.Works[i].Agent.CPU / float64(r.Works[i].Records)
	}
	plain, rules := costs[plainName], costs[rulesName]
	return 1 - plain/rules, plain > 0 && rules > 0
}

func mebibytes(n int64) string {
	if n == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.0f", float64(n)/(1<<20))
}

// write writes the report as JSON.
func (r *report) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
