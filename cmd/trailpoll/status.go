package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// statusFlags is how status was called.
type statusFlags struct {
	source, account, region, output string
	asJSON, all, watch              bool
	every                           time.Duration
}

func newStatusCommand() *cobra.Command {
	var f statusFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how the agent does: what is behind, stuck or held",
		Long: "Say how the agent does: each source, stream and output, those first that need to be looked at.\n" +
			"It asks the agent that runs; where none does, it reads the state, which says how far everything is.\n\n" +
			"behind is how long ago a stream was last listed to its end with everything in it settled: it grows\n" +
			"when something is wrong. lag is now less the stamp of the newest settled object: it grows as well\n" +
			"where simply nothing happens.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.every < 100*time.Millisecond {
				return errors.New("--interval: at least 100ms")
			}
			conf, err := load(c)
			if err != nil {
				return err
			}
			if err := f.check(conf); err != nil {
				return err
			}
			return f.run(c, conf)
		},
	}
	c.Flags().StringVar(&f.source, "source", "", "only this source, by its `NAME`")
	c.Flags().StringVar(&f.account, "account", "", "only this account, by its `ID` or name")
	c.Flags().StringVar(&f.region, "region", "", "only this `REGION`")
	c.Flags().StringVar(&f.output, "output", "", "only this output, by its `NAME`: how far streams are for it")
	c.Flags().BoolVar(&f.all, "all", false, "show every stream, not only the first "+fmt.Sprint(topStatus))
	c.Flags().BoolVar(&f.watch, "watch", false, "go on, and show it anew every few seconds")
	c.Flags().DurationVar(&f.every, "interval", 2*time.Second, "with --watch: how often")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object; with --watch one a line")
	return c
}

// topStatus is how many streams are shown without --all.
const topStatus = 20

// check refuses a source or output that is not configured, and says which are.
func (f *statusFlags) check(conf *config.Config) error {
	var sources, outputs []string
	for i := range conf.Sources {
		sources = append(sources, conf.Sources[i].Name)
	}
	for i := range conf.Outputs {
		outputs = append(outputs, conf.Outputs[i].Name)
	}
	return errors.Join(oneOf("source", f.source, sources), oneOf("output", f.output, outputs))
}

// oneOf refuses a value that is not among those that there are.
func oneOf(what, value string, all []string) error {
	if value == "" || slices.Contains(all, value) {
		return nil
	}
	slices.Sort(all)
	all = slices.Compact(all)
	const most = 20
	there := strings.Join(all[:min(len(all), most)], ", ")
	if n := len(all) - most; n > 0 {
		there += fmt.Sprintf(" and %d more", n)
	}
	if there == "" {
		there = "none yet"
	}
	return &exitError{exitUsage, &fault.Error{
		Op: "--" + what, Err: fmt.Errorf("there is no %s %q", what, value), Hint: "there is: " + there,
	}}
}

func (f *statusFlags) run(c *cobra.Command, conf *config.Config) error {
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := c.OutOrStdout()
	for first := true; ; first = false {
		st, err := askStatus(ctx, conf)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil && (first || !f.watch):
			return err
		case err != nil: // it may be about to start again
			_, err = fmt.Fprintf(w, "%s\n", err)
		default:
			if err := f.narrow(st); err != nil {
				return err
			}
			err = f.show(w, st, !first)
		}
		if err != nil || !f.watch {
			return failed(err)
		}
		select {
		case <-time.After(f.every):
		case <-ctx.Done():
			return nil
		}
	}
}

// askStatus asks the agent, or else the state.
func askStatus(ctx context.Context, conf *config.Config) (*control.Status, error) {
	client, err := control.Connect(ctx, conf.Agent.StateDir)
	if errors.Is(err, control.ErrNoAgent) {
		return atRest(conf, errors.Is(err, control.ErrLeft))
	}
	if err != nil {
		return nil, failed(err)
	}
	defer client.Close()
	st := new(control.Status)
	return st, failed(client.Do(ctx, http.MethodGet, "/v1/status", nil, st))
}

// narrow leaves what the flags ask for.
func (f *statusFlags) narrow(st *control.Status) error {
	var accounts, regions []string
	for i := range st.Streams {
		accounts = append(accounts, st.Streams[i].Account)
		regions = append(regions, st.Streams[i].Region)
	}
	named := func(s *agent.StreamStatus) bool { return s.AccountName != "" && s.AccountName == f.account }
	if !slices.ContainsFunc(st.Streams, func(s agent.StreamStatus) bool { return named(&s) }) {
		if err := oneOf("account", f.account, accounts); err != nil {
			return err
		}
	}
	if err := oneOf("region", f.region, regions); err != nil {
		return err
	}
	st.Streams = slices.DeleteFunc(st.Streams, func(s agent.StreamStatus) bool {
		return f.source != "" && s.Source != f.source ||
			f.account != "" && s.Account != f.account && !named(&s) ||
			f.region != "" && s.Region != f.region
	})
	if f.output != "" {
		kept := st.Streams[:0]
		for _, s := range st.Streams {
			if s.Narrow(f.output) {
				kept = append(kept, s)
			}
		}
		st.Streams = kept
		agent.SortStreams(st.Streams)
		st.Outputs = slices.DeleteFunc(st.Outputs, func(o agent.OutputStatus) bool { return o.Name != f.output })
	}
	if f.source != "" {
		st.Sources = slices.DeleteFunc(st.Sources, func(s agent.SourceStatus) bool { return s.Name != f.source })
	}
	return nil
}

func (f *statusFlags) show(w io.Writer, st *control.Status, again bool) error {
	if f.asJSON {
		return json.NewEncoder(w).Encode(st)
	}
	var b strings.Builder
	if f.watch && isTerminal(w) {
		b.WriteString("\x1b[H\x1b[2J") // ECMA-48: to the top left, and clear
	} else if again {
		b.WriteByte('\n')
	}
	statusTable(&b, st, f.all)
	_, err := io.WriteString(w, b.String())
	return err
}

// statusTable shows the status to a person.
func statusTable(b *strings.Builder, st *control.Status, all bool) {
	switch {
	case st.Agent.Running:
		fmt.Fprintf(b, "agent       runs as process %d since %s, version %s\n", st.Agent.PID, inUTC(*st.Agent.Since), clean(st.Agent.Version))
	case st.Agent.Crashed:
		b.WriteString("agent       does not run; the last one ended without stopping in order\n")
	default:
		b.WriteString("agent       does not run\n")
	}
	c := &st.Checkpoint
	fmt.Fprintf(b, "checkpoint  %s, %s remembered, %s parked", dataSize(float64(c.Size)), plural(c.Entries, "settled object"), number(float64(c.Parked)))
	if c.Skipped > 0 {
		fmt.Fprintf(b, ", %s skipped", number(float64(c.Skipped)))
	}
	b.WriteString("\n\n")

	rows := [][]string{{"source", "state", "streams", "LISTs", "GETs", "data", "records", "settled", "waiting", "parked"}}
	for i := range st.Sources {
		s := &st.Sources[i]
		rows = append(rows, []string{
			s.Name, s.State, number(float64(s.Streams)), number(float64(s.Lists)), number(float64(s.Gets)), dataSize(float64(s.Bytes)),
			number(float64(s.Records)), number(float64(s.Objects)), number(float64(s.Waiting)), number(float64(s.Parked)),
		})
	}
	grid(b, rows, 2)
	for i := range st.Sources {
		s := &st.Sources[i]
		for _, t := range s.Troubles {
			fmt.Fprintf(b, "  %s: %s since %s: %s\n", s.Name, clean(t.What), inUTC(t.Since), clean(t.Error))
		}
	}

	b.WriteByte('\n')
	rows = [][]string{{"output", "state", "records/s", "records", "in flight", "waiting", "retries", "repeats", "parked"}}
	for i := range st.Outputs {
		o := &st.Outputs[i]
		rows = append(rows, []string{
			o.Name, o.State, number(o.RecordsPerSecond), number(float64(o.Records)), number(float64(o.InFlight)),
			number(float64(o.Waiting)), number(float64(o.Retries)), number(float64(o.Repeats)), number(float64(o.Parked)),
		})
	}
	grid(b, rows, 2)
	for i := range st.Outputs {
		o := &st.Outputs[i]
		if o.Error != "" {
			since := ""
			if o.Since != nil {
				since = " since " + inUTC(*o.Since)
			}
			fmt.Fprintf(b, "  %s: %s%s: %s\n", o.Name, o.State, since, clean(o.Error))
		}
		if o.Unacknowledged {
			fmt.Fprintf(b, "  %s: UDP has no acknowledgement: what is written counts as settled\n", o.Name)
		}
	}

	b.WriteByte('\n')
	statusStreams(b, st, all)
	statusJobs(b, st, all)
}

// statusJobs shows the re-syncs that are not over; with all those that are, too.
func statusJobs(b *strings.Builder, st *control.Status, all bool) {
	var jobs []resyncJob
	if json.Unmarshal(st.Jobs, &jobs) != nil {
		return // of an agent of another version
	}
	rows := [][]string{{"re-sync", "state", "from", "to", "gone over", "objects", "records", "left"}}
	for i := range jobs {
		j := &jobs[i]
		if j.over() && !all {
			continue
		}
		share, left := fmt.Sprintf("%.0f %%", 100*j.Share), ""
		if !st.Agent.Running && !j.over() {
			share = ""
		}
		if j.Left > 0 {
			left = age(int64(j.Left))
		}
		rows = append(rows, []string{
			j.ID.String(), string(j.State), inUTC(j.From), inUTC(j.To), share, number(float64(j.Objects)), number(float64(j.Records)), left,
		})
	}
	if len(rows) > 1 {
		b.WriteByte('\n')
		grid(b, rows, 4)
	}
}

func statusStreams(b *strings.Builder, st *control.Status, all bool) {
	if len(st.Streams) == 0 {
		b.WriteString("no stream is known\n")
		return
	}
	shown := st.Streams
	if !all && len(shown) > topStatus {
		shown = shown[:topStatus]
	}
	rows := [][]string{{"source", "stream", "behind", "lag", "pending", "parked", "LISTs/h", "newest object"}}
	for i := range shown {
		s := &shown[i]
		account := s.Account
		if s.AccountName != "" {
			account = s.AccountName
		}
		name := strings.Join([]string{account, s.LogType, s.Region}, "/")
		if s.Organization != "" {
			name = s.Organization + "/" + name
		}
		lag, newest := "none yet", ""
		if s.Lag != nil {
			lag, newest = age(*s.Lag), inUTC(*s.LastStamp)
		}
		rows = append(rows, []string{
			s.Source, clean(name), age(s.Behind), lag, number(float64(s.Pending)), number(float64(s.Parked)),
			number(float64(s.ListsPerHour)), newest,
		})
	}
	grid(b, rows, 2)
	if n := len(st.Streams) - len(shown); n > 0 {
		fmt.Fprintf(b, "%d more (--all shows them)\n", n)
	}
}

// age writes a number of seconds with its two largest units.
func age(seconds int64) string {
	d, h, m, s := seconds/86400, seconds/3600%24, seconds/60%60, seconds%60
	two := func(a int64, x string, b int64, y string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, x)
		}
		return fmt.Sprintf("%d%s%d%s", a, x, b, y)
	}
	switch {
	case d > 0:
		return two(d, "d", h, "h")
	case h > 0:
		return two(h, "h", m, "m")
	case m > 0:
		return two(m, "m", s, "s")
	}
	return fmt.Sprintf("%ds", s)
}

// clean takes out of a text what would make another line of it, or drive the
// terminal: keys and errors come from elsewhere.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= 0x202a && r <= 0x202e {
			return '\ufffd'
		}
		return r
	}, s)
}
