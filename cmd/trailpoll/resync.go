package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// resyncFlags is how resync was called.
type resyncFlags struct {
	from, to                                      string
	sources, accounts, regions, logTypes, outputs []string
	resend, dryRun, wait, detach, asJSON          bool
	prices, kms                                   string
}

func newResyncCommand() *cobra.Command {
	var f resyncFlags
	c := &cobra.Command{
		Use:   "resync --from WHEN --to WHEN",
		Short: "Go over a window of the bucket again and send what is missing, or all of it",
		Long: "Go over a window again and send what is missing, also from before start and from beyond the\n" +
			"late horizon; with --resend, send all of it again. The window is one of the times in the names\n" +
			"of log files, half-open. Events reach log files about ten minutes later: for the events up to\n" +
			"14:00, end the window at 14:15 or later.\n\n" +
			"WHEN is a date, which means its whole day (2026-11-03), a time (2026-11-03T14:00), now, or so\n" +
			"long ago (-36h, -7d). All are UTC unless a zone is given (2026-11-03T14:00+01:00).\n\n" +
			"A running agent does the work, beside what is new, which goes first. Without one this command\n" +
			"does it, or with --detach leaves it to the next run, run --once included. A re-sync goes on\n" +
			"where it was after a restart or a crash. Windows that were gone over are remembered: a second\n" +
			"re-sync of the same window sends nothing.\n\n" +
			"Exit codes: 0 done, or ordered with --detach; 1 failed, interrupted or cancelled; 2 wrong usage\n" +
			"or configuration, or nothing there is what was asked for; 4 another agent holds the state.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			order, err := f.order(time.Now())
			if err != nil {
				return err
			}
			prices, err := plan.ParsePrices(f.prices)
			switch {
			case err != nil:
				return fmt.Errorf("--price: %w", err)
			case f.kms != "on" && f.kms != "off":
				return fmt.Errorf("--kms: %q is neither on nor off", f.kms)
			case f.wait && f.detach:
				return errors.New("--wait and --detach are opposites")
			case f.dryRun && (f.wait || f.detach):
				return errors.New("--dry-run does nothing that could be waited for")
			case !f.dryRun && (c.Flags().Changed("price") || c.Flags().Changed("kms")):
				return errors.New("--price and --kms go with --dry-run")
			}
			conf, err := load(c)
			if err != nil {
				return err
			}
			if f.dryRun {
				return countResync(c, conf, order, f, prices)
			}
			return doResync(c, conf, order, f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "the window's beginning `WHEN`")
	fl.StringVar(&f.to, "to", "", "the window's end `WHEN`; a time is not part of it, a date is")
	fl.StringSliceVar(&f.sources, "source", nil, "only this `SOURCE`; may be given several times, as all of these")
	fl.StringSliceVar(&f.accounts, "account", nil, "only this `ACCOUNT`")
	fl.StringSliceVar(&f.regions, "region", nil, "only this `REGION`")
	fl.StringSliceVar(&f.logTypes, "log-type", nil, "only this log `TYPE`: CloudTrail, CloudTrail-Insight, CloudTrail-NetworkActivity, CloudTrail-Aggregated")
	fl.StringSliceVar(&f.outputs, "output", nil, "only to this `OUTPUT`")
	fl.BoolVar(&f.resend, "resend", false, "send all again, whether it was sent or not")
	fl.BoolVar(&f.dryRun, "dry-run", false, "only count what would be sent, and what that costs")
	fl.BoolVar(&f.wait, "wait", false, "wait until it is done (the default)")
	fl.BoolVar(&f.detach, "detach", false, "don't wait: the agent that runs does it, or the next one")
	fl.StringVar(&f.prices, "price", "", "with --dry-run: other `PRICES` than those of us-east-1, as with plan")
	fl.StringVar(&f.kms, "kms", "off", "with --dry-run: on, if the objects are encrypted with SSE-KMS")
	c.PersistentFlags().BoolVar(&f.asJSON, "json", false, "print one JSON object")
	c.AddCommand(newResyncListCommand(&f), newResyncCancelCommand(&f))
	return c
}

func newResyncListCommand(f *resyncFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the re-syncs: queued, running, and the last that are over",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withResyncs(c, false, func(ctx context.Context, d resyncDesk) error {
				jobs, err := d.list(ctx)
				if err != nil {
					return failed(err)
				}
				return showResyncs(c, jobs, f.asJSON)
			})
		},
	}
}

func newResyncCancelCommand(f *resyncFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "End a re-sync; what it has sent stays sent",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || id == 0 {
				return fmt.Errorf("%q is no re-sync's id: trailpoll resync list shows them", args[0])
			}
			return withResyncs(c, true, func(ctx context.Context, d resyncDesk) error {
				job, err := d.cancel(ctx, progress.ResyncID(id))
				if err != nil {
					return resyncError(err)
				}
				return showResyncs(c, []resyncJob{job}, f.asJSON)
			})
		},
	}
}

// order makes an order of the flags; errors are about how the command was called.
func (f *resyncFlags) order(now time.Time) (agent.ResyncOrder, error) {
	o := agent.ResyncOrder{
		Sources: f.sources, Accounts: f.accounts, Regions: f.regions, LogTypes: f.logTypes, Outputs: f.outputs, Resend: f.resend,
	}
	if f.from == "" || f.to == "" {
		return o, errors.New("give the window as --from and --to (see trailpoll resync --help)")
	}
	from, _, err := parseWhen(f.from, now)
	if err != nil {
		return o, fmt.Errorf("--from: %w", err)
	}
	to, isDay, err := parseWhen(f.to, now)
	if err != nil {
		return o, fmt.Errorf("--to: %w", err)
	}
	if isDay {
		to = to.AddDate(0, 0, 1)
	}
	o.From, o.To = from.UTC(), to.UTC()
	switch {
	case !o.From.Before(o.To):
		return o, fmt.Errorf("the window is upside down: it begins at %s and ends at %s", inUTC(o.From), inUTC(o.To))
	case o.To.After(now) && isDay:
		return o, fmt.Errorf("the window ends in the future: that day ends at %s; for what there is of it, write --to now", inUTC(o.To))
	case o.To.After(now):
		return o, fmt.Errorf("the window ends in the future, at %s: it is %s now; write --to now", inUTC(o.To), inUTC(now))
	case o.From.Before(firstTrail):
		return o, fmt.Errorf("--from: %s is before CloudTrail's first day, 2013-11-13", inUTC(o.From))
	}
	return o, nil
}

// firstTrail is when CloudTrail was announced ("AWS CloudTrail", AWS News Blog).
var firstTrail = time.Date(2013, 11, 13, 0, 0, 0, 0, time.UTC)

// parseWhen reads a date, whose first instant it returns, a time, "now", or a
// time before now.
func parseWhen(s string, now time.Time) (t time.Time, isDay bool, err error) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{time.DateOnly, "2006-01-02Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true, nil
		}
	}
	at := strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{
		"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", time.RFC3339,
	} {
		if t, err := time.Parse(layout, at); err == nil {
			return t, false, nil
		}
	}
	if s == "now" || strings.HasPrefix(s, "-") {
		if start, err := config.ParseStart(s); err == nil {
			t, err := start.Resolve(now)
			return t.Truncate(time.Second), false, err
		}
	}
	return t, false, fmt.Errorf("%q is neither a date (2026-11-03) nor a time (2026-11-03T14:00, with Z or +01:00 for a zone), nor now, nor so long ago (-36h, -7d)", s)
}

// resyncError gives the error of an order its exit code: what was asked for
// does not exist, or something failed.
func resyncError(err error) error {
	if errors.Is(err, agent.ErrNoResync) || isRefusal(err) {
		return &exitError{exitUsage, err}
	}
	return asExit(err)
}

func isRefusal(err error) bool {
	return fault.KindOf(err) == fault.Misconfigured && strings.HasPrefix(err.Error(), "ordering a re-sync: ")
}

// withResyncs calls f with the re-syncs of the agent that runs, or of the state.
func withResyncs(c *cobra.Command, changes bool, f func(context.Context, resyncDesk) error) error {
	conf, err := load(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := connect(c, conf)
	if err != nil {
		return err
	}
	if client != nil {
		defer client.Close()
		return f(ctx, &remoteResyncs{client})
	}
	local, err := openResyncs(c, conf, changes)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, local), local.close())
}

// countResync says what a re-sync would do.
func countResync(c *cobra.Command, conf *config.Config, o agent.ResyncOrder, f resyncFlags, prices plan.Prices) error {
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := connect(c, conf)
	if err != nil {
		return err
	}
	var d resyncDesk
	if client != nil {
		defer client.Close()
		d = &remoteResyncs{client}
	} else {
		local, err := openResyncs(c, conf, false)
		if err != nil {
			return err
		}
		defer func() { _ = local.close() }()
		d = local
	}
	e, err := d.count(ctx, o)
	if ctx.Err() != nil {
		return failed(errors.New("interrupted"))
	}
	if err != nil {
		return resyncError(err)
	}
	e.price(prices, f.kms == "on")
	for i, x := range e.Failed {
		if i == mostFailures {
			fmt.Fprintf(c.ErrOrStderr(), "trailpoll: %d more listings failed\n", len(e.Failed)-i)
			break
		}
		fmt.Fprintf(c.ErrOrStderr(), "trailpoll: %s\n", x.Error)
		if x.Remedy != "" {
			fmt.Fprintf(c.ErrOrStderr(), "trailpoll: %s\n", x.Remedy)
		}
	}
	if err := showEstimate(c, e, f); err != nil {
		return failed(err)
	}
	if len(e.Failed) > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}
