package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/check"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/s3source"
	"github.com/trailpoll/trailpoll/checkpoint"
	"github.com/trailpoll/trailpoll/installer/aws"
	"github.com/trailpoll/trailpoll/regions"
)

// exitProblem: check found a problem.
const exitProblem = 3

// stepTimeout is how long one step of check may take.
const stepTimeout = 20 * time.Second

// checkFlags is how check was called.
type checkFlags struct {
	asJSON, sendTest, policy bool
	sources, outputs         []string
	keys                     []string // ARNs, for policy
	sample                   string
	timeout                  time.Duration
}

func newCheckCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check",
		Short: "Try everything end to end, and name what is wrong and how to mend it",
		Long: "Try everything end to end: state, clock, endpoints, credentials, roles, the bucket, its logs,\n" +
			"decryption, outputs; name what is wrong and how to mend it, and say what a month costs.\n" +
			"It changes nothing, in AWS or here, and may run beside the agent. Run it as the user that the\n" +
			"agent runs as. A test record is sent only with --send-test.\n\n" +
			"Exit code 3 if something is wrong. The JSON has steps[] of name, source or output, state (ok, failed,\n" +
			"skipped or warning), tried, answer and remedy.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(f.keys) > 0 && !f.policy {
				return errors.New("--kms-key is for --print-policy")
			}
			if f.timeout < time.Second {
				return fmt.Errorf("--timeout: %v is shorter than a second", f.timeout)
			}
			conf, file, err := loadToCheck(c)
			if err != nil {
				return err
			}
			switch {
			case f.sample != "":
				return showFilterSample(c, conf, f.sample, f.asJSON)
			case f.policy:
				return printPolicies(c, conf, &f)
			}
			return runCheck(c, conf, file, &f)
		},
	}
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&f.sendTest, "send-test", false, "send a test record to each output")
	c.Flags().BoolVar(&f.policy, "print-policy", false, "print the policies that each source needs, filled in, and try nothing")
	c.Flags().StringSliceVar(&f.keys, "kms-key", nil, "with --print-policy: the `ARN` of the key that the logs are encrypted with")
	c.Flags().StringSliceVar(&f.sources, "source", nil, "only these sources, by `NAME`")
	c.Flags().StringSliceVar(&f.outputs, "output", nil, "only these outputs, by `NAME`")
	c.Flags().StringVar(&f.sample, "filter-sample", "", "show what each filter would do to a log `FILE`, and try nothing else")
	c.Flags().DurationVar(&f.timeout, "timeout", stepTimeout, "how long one step may take")
	c.MarkFlagsMutuallyExclusive("filter-sample", "print-policy", "send-test")
	return c
}

// loadToCheck reads the configuration as load does. What it warns of becomes
// steps, where there are any.
func loadToCheck(c *cobra.Command) (*config.Config, check.ConfigFile, error) {
	path, err := c.Flags().GetString("config")
	if err != nil {
		return nil, check.ConfigFile{}, err
	}
	conf, warnings, err := config.Load(path, judgeFilter)
	if err != nil {
		for _, w := range warnings {
			fmt.Fprintf(c.ErrOrStderr(), "warning: %v\n", w)
		}
		return nil, check.ConfigFile{}, &exitError{exitUsage, err}
	}
	return conf, configToCheck(path, warnings), nil
}

func configToCheck(path string, warnings []config.Warning) check.ConfigFile {
	file := check.ConfigFile{Path: path}
	for _, w := range warnings {
		remedy := w.Remedy
		w.Remedy = ""
		file.Warnings = append(file.Warnings, check.Advice{What: w.String(), Remedy: remedy})
	}
	return file
}

func runCheck(c *cobra.Command, conf *config.Config, file check.ConfigFile, f *checkFlags) error {
	if err := f.pick(conf); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := check.Plan{SendTest: f.sendTest, StepTimeout: f.timeout, Config: file, State: stateToCheck(conf)}
	records := c.OutOrStdout() // where an output of type stdout sends its test
	if f.asJSON {
		records = c.ErrOrStderr()
	}
	for i := range conf.Sources {
		s := &conf.Sources[i]
		if !s.Enabled || len(f.sources) > 0 && !slices.Contains(f.sources, s.Name) || len(f.outputs) > 0 && len(f.sources) == 0 {
			continue
		}
		store, err := s3source.New(bucketConfig(&conf.Agent, s))
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("source %s: %w", s.Name, err)}
		}
		defer store.Close()
		p.Sources = append(p.Sources, sourceToCheck(conf, s, store))
	}
	for i := range conf.Outputs {
		o := &conf.Outputs[i]
		if !o.Enabled || len(f.outputs) > 0 && !slices.Contains(f.outputs, o.Name) || len(f.sources) > 0 && len(f.outputs) == 0 {
			continue
		}
		out, err := wireOutput(&conf.Agent, o, records)
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("output %s: %w", o.Name, err)}
		}
		defer out.Output.Close()
		p.Outputs = append(p.Outputs, outputToCheck(conf, o, &out))
	}
	report := checkReport{Schema: 1, Steps: []check.Step{}}
	heading := ""
	fine := p.Run(ctx, func(s check.Step) {
		report.Steps = append(report.Steps, s)
		if !f.asJSON {
			showStep(c.OutOrStdout(), &s, &heading)
		}
	})
	if err := ctx.Err(); err != nil {
		return failed(errors.New("interrupted"))
	}
	if f.asJSON {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetEscapeHTML(false)
		if err := e.Encode(report); err != nil {
			return failed(err)
		}
	} else {
		report.sum(c.OutOrStdout())
	}
	if !fine {
		return &exitError{code: exitProblem}
	}
	return nil
}

// checkReport is check's JSON object.
type checkReport struct {
	Schema int          `json:"schema"`
	Steps  []check.Step `json:"steps"`
}

// sum says how it ended.
func (r *checkReport) sum(w io.Writer) {
	n := map[check.State]int{}
	for _, s := range r.Steps {
		n[s.State]++
	}
	switch {
	case n[check.Failed] > 0:
		fmt.Fprintf(w, "\n%s wrong; %s more to look at\n", is(n[check.Failed], "thing"), plural(n[check.Warning], "warning"))
	case n[check.Warning] > 0:
		fmt.Fprintf(w, "\nnothing is wrong; %s\n", plural(n[check.Warning], "warning"))
	default:
		fmt.Fprintln(w, "\nall is well")
	}
}

func is(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return plural(n, noun) + " are"
}

// signs stand before each step.
var signs = map[check.State]string{check.OK: "✓", check.Failed: "✗", check.Skipped: "–", check.Warning: "!"}

// showStep shows a step to a person, below the heading of what it is about.
func showStep(w io.Writer, s *check.Step, heading *string) {
	of := "this machine"
	switch {
	case s.Source != "":
		of = "source " + s.Source
	case s.Output != "":
		of = "output " + s.Output
	}
	if of != *heading {
		if *heading != "" {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, of)
		*heading = of
	}
	fmt.Fprintf(w, "  %s %-15s %s\n", signs[s.State], s.Name, s.Tried)
	indented := func(mark, text string) {
		for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
			if i > 0 {
				mark = "  "
			}
			fmt.Fprintf(w, "    %-15s   %s%s\n", "", mark, line)
		}
	}
	if s.Answer != "" {
		indented("", s.Answer)
	}
	if s.Remedy != "" && s.State != check.OK {
		indented("→ ", s.Remedy)
	}
}

// pick reports names that are not configured.
func (f *checkFlags) pick(conf *config.Config) error {
	var sources, outputs []string
	for i := range conf.Sources {
		sources = append(sources, conf.Sources[i].Name)
	}
	for i := range conf.Outputs {
		outputs = append(outputs, conf.Outputs[i].Name)
	}
	for _, of := range []struct {
		flag         string
		asked, there []string
	}{{"--source", f.sources, sources}, {"--output", f.outputs, outputs}} {
		for _, n := range of.asked {
			if !slices.Contains(of.there, n) {
				return fmt.Errorf("%s: there is no %q; there is %s", of.flag, n, strings.Join(of.there, ", "))
			}
		}
	}
	return nil
}

// stateToCheck is the state directory with what uses it.
func stateToCheck(conf *config.Config) check.StateDir {
	dir := conf.Agent.StateDir
	return check.StateDir{
		Path: dir,
		Free: freeSpace,
		Agent: func(ctx context.Context) (bool, error) {
			client, err := control.Connect(ctx, dir)
			switch {
			case err == nil:
				client.Close()
				return true, nil
			case errors.Is(err, control.ErrNoAgent):
				return false, nil
			}
			return false, err
		},
		State: func() (string, error) {
			store, err := checkpoint.OpenReadOnly(dir, time.Second)
			switch {
			case errors.Is(err, checkpoint.ErrNoState):
				return "there is none yet: the agent makes it when it first runs", nil
			case errors.Is(err, checkpoint.ErrHeld):
				return "", fmt.Errorf("%w: %w", check.ErrHeld, err)
			case err != nil:
				return "", err
			}
			defer store.Close()
			st, err := store.Stats()
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("it is whole; %d KiB", st.Size>>10), nil
		},
	}
}

func sourceToCheck(conf *config.Config, s *config.Source, store *s3source.Source) check.Source {
	cfg := wireSource(s, store)
	out := check.Source{
		Name: s.Name, Bucket: s.Bucket.Name, Prefix: s.Bucket.Prefix, Region: s.Bucket.Region, Owner: s.Bucket.Owner,
		RequesterPays: s.Bucket.RequesterPays, MaxRecord: int(conf.Agent.MaxRecord),
		Settings: plan.Settings{
			Refresh: cfg.Refresh, IdleRefresh: cfg.IdleRefresh, LookBack: cfg.LookBack, LateHorizon: cfg.LateHorizon,
			Discovery: cfg.Discovery, MaxListsPerMinute: cfg.MaxListsPerMinute,
		},
		Way: store, Store: store,
		Survey: func(ctx context.Context) (check.Survey, error) {
			found, err := agent.Survey(ctx, cfg, agent.SurveyOptions{Pages: 2})
			out := check.Survey{At: found.At, Streams: found.Streams, DiscoveryLists: found.DiscoveryLists}
			for _, f := range found.Failed {
				out.Failed = append(out.Failed, check.ListFailure(f))
			}
			return out, err
		},
	}
	for _, r := range s.Credentials.AssumeRole {
		out.Roles = append(out.Roles, r.ARN)
		out.ExternalID = r.ExternalID
	}
	return out
}

func outputToCheck(conf *config.Config, o *config.Output, out *agent.OutputConfig) check.Output {
	x := check.Output{Name: o.Name, Type: o.Type, Sender: out.Output, Unacknowledged: out.Unacknowledged}
	x.Receiver, _ = out.Output.(check.Receiver)
	switch o.Type {
	case config.TypeHTTPS:
		x.To = config.RedactURL(o.HTTPS.URL.Reveal())
	case config.TypeSyslog:
		x.To = strings.Join(o.Syslog.Addresses, ", ") + " (" + o.Syslog.Transport + ")"
	case config.TypeFile:
		x.To = o.File.Path
	default:
		x.To = o.Type
	}
	for i := range conf.Sources {
		if conf.Sources[i].Enabled && (len(o.Sources) == 0 || slices.Contains(o.Sources, conf.Sources[i].Name)) {
			x.Sources++
		}
	}
	return x
}

// printPolicies prints what AWS must grant, for each source.
func printPolicies(c *cobra.Command, conf *config.Config, f *checkFlags) error {
	if err := f.pick(conf); err != nil {
		return err
	}
	type policies struct {
		Source    string         `json:"source"`
		Documents []aws.Document `json:"documents"`
	}
	var all []policies
	for i := range conf.Sources {
		s := &conf.Sources[i]
		if !s.Enabled || len(f.sources) > 0 && !slices.Contains(f.sources, s.Name) {
			continue
		}
		setup := aws.Setup{Bucket: s.Bucket.Name, Prefix: s.Bucket.Prefix, KMSKeys: f.keys}
		if p, ok := regions.PartitionOf(s.Bucket.Region); ok {
			setup.Partition = p.ID
		}
		for _, r := range s.Credentials.AssumeRole {
			setup.Roles = append(setup.Roles, r.ARN)
			setup.ExternalID = r.ExternalID
			if part := strings.SplitN(r.ARN, ":", 3); len(part) == 3 && setup.Partition == "" {
				setup.Partition = part[1]
			}
		}
		docs, err := aws.Render(setup)
		if err != nil {
			return failed(fmt.Errorf("source %s: %w", s.Name, err))
		}
		all = append(all, policies{s.Name, docs})
	}
	out := c.OutOrStdout()
	if f.asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return failed(e.Encode(map[string]any{"schema": 1, "sources": all}))
	}
	for _, p := range all {
		for _, d := range p.Documents {
			if _, err := fmt.Fprintf(out, "# source %s: %s\n%s\n\n", p.Source, d.Title, strings.TrimRight(d.JSON, "\n")); err != nil {
				return failed(err)
			}
		}
	}
	return nil
}
