package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// resyncLines is how often a line says how far a re-sync is, where there is no
// terminal to draw a bar on.
const resyncLines = 10 * time.Second

// resyncShow shows a person how far a re-sync is: as a bar on a terminal, as
// lines elsewhere. It is to be ended.
type resyncShow struct {
	w     io.Writer
	bars  *mpb.Progress // nil: lines
	bar   *mpb.Bar
	text  chan string // what stands beside the bar; one
	last  time.Time
	state progress.ResyncState
	held  string
}

func newResyncShow(w io.Writer, id progress.ResyncID) *resyncShow {
	s := &resyncShow{w: w}
	if !isTerminal(w) {
		return s
	}
	s.text = make(chan string, 1)
	s.text <- ""
	s.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	s.bar = s.bars.AddBar(barParts, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name("re-sync "+id.String()+" "), decor.Percentage()),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			t := <-s.text
			s.text <- t
			return t
		})))
	return s
}

// barParts is how finely the bar is drawn.
const barParts = 1000

// above returns where lines may be written while it is shown.
func (s *resyncShow) above() io.Writer {
	if s.bars != nil {
		return s.bars
	}
	return s.w
}

// now shows how far the re-sync is, and returns it.
func (s *resyncShow) now(jobs []resyncJob, id progress.ResyncID) resyncJob {
	for i := range jobs {
		if jobs[i].ID == id {
			s.show(&jobs[i], time.Now())
			return jobs[i]
		}
	}
	return resyncJob{ID: id}
}

func (s *resyncShow) show(j *resyncJob, now time.Time) {
	if s.bars != nil {
		s.bar.SetCurrent(min(int64(j.Share*barParts), barParts-1)) // the end is end's
		<-s.text
		s.text <- " " + howFar(j)
		return
	}
	held := strings.Join(j.Held, ", ")
	if now.Sub(s.last) < resyncLines && j.State == s.state && held == s.held {
		return
	}
	s.last, s.state, s.held = now, j.State, held
	fmt.Fprintf(s.w, "trailpoll: re-sync %v is %s: %.1f %%, %s\n", j.ID, j.State, 100*j.Share, howFar(j))
}

// howFar says in a line how far a re-sync is.
func howFar(j *resyncJob) string {
	parts := []string{number(float64(j.Objects)) + " objects sent", number(float64(j.Records)) + " records"}
	if j.Passed > 0 {
		parts = append(parts, number(float64(j.Passed))+" settled before")
	}
	if j.Rate > 0 {
		parts = append(parts, number(j.Rate)+" objects/s")
	}
	if j.Left > 0 && !j.over() {
		parts = append(parts, span(j.Left)+" left")
	}
	if j.Day != "" {
		parts = append(parts, "at "+j.Day)
	}
	if len(j.Held) > 0 {
		parts = append(parts, "waiting for "+strings.Join(j.Held, ", ")+", held")
	}
	return strings.Join(parts, ", ")
}

// span writes seconds for a person.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24+0.5))
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()+0.5))
}

// end takes the bar away. A second end does nothing.
func (s *resyncShow) end() {
	if s.bars == nil || s.bar == nil {
		return
	}
	s.bar.Abort(true)
	s.bars.Wait()
	s.bar = nil
	s.bars = nil
}

// showOrdered says that a re-sync was ordered and is left to somebody else.
func showOrdered(w io.Writer, j resyncJob, f resyncFlags, who string) error {
	if f.asJSON {
		return failed(writeResyncs(w, []resyncJob{j}))
	}
	_, err := fmt.Fprintf(w, "re-sync %v is ordered: %s to %s; %s\n", j.ID, inUTC(j.From), inUTC(j.To), who)
	return failed(err)
}

// showEnded says what has come of a re-sync that is over.
func showEnded(w io.Writer, j resyncJob, f resyncFlags) error {
	var err error
	if f.asJSON {
		err = writeResyncs(w, []resyncJob{j})
	} else {
		_, err = fmt.Fprintf(w, "re-sync %v is %s: %s objects sent (%s records, %s), %s settled before\n", j.ID, j.State,
			number(float64(j.Objects)), number(float64(j.Records)), dataSize(float64(j.Bytes)), number(float64(j.Passed)))
		for _, o := range j.Out {
			if err == nil {
				_, err = fmt.Fprintf(w, "left out: %s, which is not configured or switched off\n", o)
			}
		}
	}
	if err == nil && j.State != progress.ResyncDone {
		return &exitError{code: exitFailed}
	}
	return failed(err)
}

func writeResyncs(w io.Writer, jobs []resyncJob) error {
	if jobs == nil {
		jobs = []resyncJob{}
	}
	return json.NewEncoder(w).Encode(resyncAnswer{Schema: control.Schema, Jobs: jobs})
}

// showResyncs lists re-syncs.
func showResyncs(c *cobra.Command, jobs []resyncJob, asJSON bool) error {
	if asJSON {
		return failed(writeResyncs(c.OutOrStdout(), jobs))
	}
	var b strings.Builder
	if len(jobs) == 0 {
		b.WriteString("there are no re-syncs\n")
	} else {
		rows := [][]string{{"id", "state", "from", "to", "sources", "outputs", "only", "objects", "settled before", "records", "done"}}
		for i := range jobs {
			j := &jobs[i]
			var only []string
			for _, names := range [][]string{j.Accounts, j.Regions, j.LogTypes} {
				only = append(only, names...)
			}
			if j.Resend {
				only = append(only, "resend")
			}
			rows = append(rows, []string{
				j.ID.String(), string(j.State), inUTC(j.From), inUTC(j.To), strings.Join(j.Sources, ","),
				strings.Join(j.Outputs, ","), strings.Join(only, ","),
				number(float64(j.Objects)), number(float64(j.Passed)), number(float64(j.Records)), fmt.Sprintf("%.1f %%", 100*j.Share),
			})
		}
		grid(&b, rows, 7)
		for _, j := range jobs {
			for _, o := range j.Out {
				if !j.over() {
					fmt.Fprintf(&b, "\nre-sync %v leaves out %s, which is not configured or switched off\n", j.ID, o)
				}
			}
		}
	}
	_, err := io.WriteString(c.OutOrStdout(), b.String())
	return failed(err)
}

// showEstimate says what a re-sync would do.
func showEstimate(c *cobra.Command, e resyncEstimate, f resyncFlags) error {
	w := c.OutOrStdout()
	if f.asJSON {
		return json.NewEncoder(w).Encode(resyncAnswer{Schema: control.Schema, Estimate: &e})
	}
	_, err := fmt.Fprintf(w, "%s to %s: %s looked at with %s\n"+
		"it would send %s objects (%s, each counted once for each output: %s); %s are settled already\n"+
		"it would cost about %s USD: %s requests (%s, %s), %s KMS, %s transfer\n",
		inUTC(e.From), inUTC(e.To), plural(e.Streams, "stream"), plural(e.Lists, "LIST"),
		number(float64(e.Objects)), dataSize(float64(e.Bytes)), number(float64(e.Sends)), number(float64(e.Passed)),
		money(e.Total), money(e.Requests), plural(e.Lists, "LIST"), plural(int(e.Objects), "GET"), money(e.KMS), money(e.Transfer))
	return err
}
