package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/s3source"
)

// planFlags is how plan was called.
type planFlags struct {
	asJSON, all bool
	days        int
	prices      string
	kms         string
	budget      float64
}

func newPlanCommand() *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what a month will cost: streams, LISTs, GETs, KMS calls and data",
		Long: "Say what a month will cost, at the current settings and at half and double refresh and idle_refresh.\n" +
			"It discovers the streams of each enabled source and lists the last days of each. It reads no object,\n" +
			"leaves the state alone and may run beside the agent; its own LISTs cost a few cents at most.\n\n" +
			"Exit code 1 if something could not be listed: the figures are then without it.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			prices, err := plan.ParsePrices(f.prices)
			switch {
			case err != nil:
				return fmt.Errorf("--price: %w", err)
			case f.kms != "on" && f.kms != "off":
				return fmt.Errorf("--kms: %q is neither on nor off", f.kms)
			case f.days < 1 || f.days > 30:
				return fmt.Errorf("--days: %d is not between 1 and 30", f.days)
			case c.Flags().Changed("budget") && !(f.budget > 0):
				return errors.New("--budget: write US dollars a month, as in --budget 20")
			}
			conf, err := load(c)
			if err != nil {
				return err
			}
			return runPlan(c, conf, f, prices)
		},
	}
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&f.all, "all", false, "show every stream, not only the dearest")
	c.Flags().IntVar(&f.days, "days", 2, "how many days of each stream to look at; 7 for a whole week")
	c.Flags().StringVar(&f.prices, "price", "", "other `PRICES` than those of us-east-1, in USD for 1,000 requests and for a GB\n"+
		"that leaves AWS (transfer=0 inside): list=0.005,get=0.0004,kms=0.003,transfer=0.09")
	c.Flags().StringVar(&f.kms, "kms", "off", "on: the objects are encrypted with SSE-KMS, and each GET is a call to KMS, too")
	c.Flags().Float64Var(&f.budget, "budget", 0, "look for the refresh and idle_refresh that keep within so many `USD` a month")
	return c
}

// planned is all that there is to show.
type planned struct {
	flags   planFlags
	prices  plan.Prices
	sources []plannedSource
	usable  []plan.Source // those of sources that could be surveyed, in their order
	answer  *plan.Answer  // nil without --budget
}

// plannedSource is one source with what was found of it, or why nothing was.
type plannedSource struct {
	conf  *config.Source
	found agent.Surveyed
	err   error
	plan  plan.Source
}

func runPlan(c *cobra.Command, conf *config.Config, f planFlags, prices plan.Prices) error {
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := planned{flags: f, prices: prices}
	for i := range conf.Sources {
		if conf.Sources[i].Enabled {
			p.sources = append(p.sources, plannedSource{conf: &conf.Sources[i]})
		}
	}
	var wg sync.WaitGroup
	for i := range p.sources {
		s := &p.sources[i]
		wg.Go(func() { s.survey(ctx, &conf.Agent, f) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return failed(errors.New("interrupted"))
	}
	complete := true
	for i := range p.sources {
		s := &p.sources[i]
		complete = s.complain(c.ErrOrStderr()) && complete
		if s.err == nil {
			p.usable = append(p.usable, s.plan)
		}
	}
	if f.budget > 0 && len(p.usable) > 0 {
		a := plan.Fit(p.usable, prices, f.budget)
		p.answer = &a
	}
	show := p.table
	if f.asJSON {
		show = p.json
	}
	if err := show(c.OutOrStdout()); err != nil {
		return failed(fmt.Errorf("writing the plan: %w", err))
	}
	if !complete {
		return &exitError{code: exitFailed}
	}
	return nil
}

// survey looks at the source.
func (s *plannedSource) survey(ctx context.Context, a *config.Agent, f planFlags) {
	store, err := s3source.New(bucketConfig(a, s.conf))
	if err != nil {
		s.err = err
		return
	}
	defer store.Close()
	cfg := wireSource(s.conf, store)
	if s.found, s.err = agent.Survey(ctx, cfg, agent.SurveyOptions{Days: f.days}); s.err != nil {
		return
	}
	s.plan = plan.Source{
		Name: cfg.Name,
		Settings: plan.Settings{
			Refresh: cfg.Refresh, IdleRefresh: cfg.IdleRefresh, LookBack: cfg.LookBack, LateHorizon: cfg.LateHorizon,
			Discovery: cfg.Discovery, MaxListsPerMinute: cfg.MaxListsPerMinute,
		},
		Streams: s.found.Streams, DiscoveryLists: s.found.DiscoveryLists, KMS: f.kms == "on",
	}
}

// mostFailures is how many failed listings of a source are named one by one.
const mostFailures = 5

// complain says what of the source could not be listed, and reports whether
// there was nothing to say.
func (s *plannedSource) complain(w io.Writer) bool {
	say := func(err error) {
		fmt.Fprintf(w, "trailpoll: source %s: %v\n", s.conf.Name, err)
		if hint := fault.HintOf(err); hint != "" {
			fmt.Fprintf(w, "trailpoll: %s\n", hint)
		}
	}
	if s.err != nil {
		say(s.err)
		return false
	}
	for i, f := range s.found.Failed {
		if i == mostFailures {
			fmt.Fprintf(w, "trailpoll: source %s: %d more listings failed\n", s.conf.Name, len(s.found.Failed)-i)
			break
		}
		say(f.Err)
	}
	return len(s.found.Failed) == 0
}

// column is one of the settings that are set side by side.
type column struct {
	name     string
	settings []plan.Settings // one a usable source
	load     plan.Load
	cost     plan.Cost
}

// columns returns the plan at today's settings and at half and double of them.
func (p *planned) columns() []column {
	all := []column{{name: "half"}, {name: "today"}, {name: "double"}}
	for i, f := range []float64{0.5, 1, 2} {
		c := &all[i]
		for j := range p.usable {
			s := p.usable[j].Settings
			if f != 1 {
				s = s.Scaled(f)
			}
			c.settings = append(c.settings, s)
			c.load = c.load.Plus(p.usable[j].Load(s))
		}
		c.cost = p.prices.Month(c.load)
	}
	return all
}

// inUTC returns the time to the second in UTC, as logs have it.
func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }
