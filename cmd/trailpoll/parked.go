package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

func newParkedCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "parked",
		Short: "List what could not be delivered, try it again, or set it aside",
		Long: "What could not be delivered is parked: an object, or single records of it. It is kept with its reason,\n" +
			"and tried again by itself where that may help (denied, kms-denied, archived, changed; corrupt and\n" +
			"truncated for a day). Everything else waits for an operator.",
		Args: cobra.NoArgs, RunE: help,
	}
	c.AddCommand(newParkedListCommand(), newParkedShowCommand(), newParkedRetryCommand(), newParkedSkipCommand())
	return c
}

func newParkedListCommand() *cobra.Command {
	f := parkedFilter{}
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List what is parked, by reason, source and age",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := usage(knownReason(f.reason)); err != nil {
				return err
			}
			if f.limit < 0 {
				return errors.New("--limit: not below 0")
			}
			conf, err := load(c)
			if err != nil {
				return err
			}
			if err := (&statusFlags{source: f.source, output: f.output}).check(conf); err != nil {
				return err
			}
			all, err := askParked(c, conf, f)
			if err != nil {
				return err
			}
			if asJSON {
				return failed(json.NewEncoder(c.OutOrStdout()).Encode(all))
			}
			return failed(parkedTable(c.OutOrStdout(), all))
		},
	}
	c.Flags().StringVar((*string)(&f.reason), "reason", "", "only what is parked for this `REASON`")
	c.Flags().StringVar(&f.source, "source", "", "only of this source, by its `NAME`")
	c.Flags().StringVar(&f.output, "output", "", "only for this output, by its `NAME`")
	c.Flags().StringVar(&f.account, "account", "", "only of this account, by its `ID`")
	c.Flags().BoolVar(&f.skipped, "skipped", false, "what was skipped, with the remarks")
	c.Flags().IntVar(&f.limit, "limit", 1000, "no more than so many; 0 = all")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// usage makes exit code 2 of an error about how the command was called.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

// askParked asks the agent what is parked, or else the state.
func askParked(c *cobra.Command, conf *config.Config, f parkedFilter) (*control.Parked, error) {
	client, err := connect(c, conf)
	if err != nil {
		return nil, err
	}
	if client != nil {
		defer client.Close()
		out := new(control.Parked)
		return out, failed(client.Do(c.Context(), http.MethodGet, "/v1/parked"+f.query(), nil, out))
	}
	store, err := readState(conf)
	if err != nil {
		return nil, err
	}
	if store == nil {
		return &control.Parked{Schema: control.Schema, Parked: []control.ParkedEntry{}}, nil
	}
	defer store.Close()
	out, err := listParked(store, sourceNames(conf), f)
	return out, failed(err)
}

func parkedTable(w io.Writer, all *control.Parked) error {
	var b strings.Builder
	if len(all.Parked) == 0 {
		b.WriteString("nothing\n")
	} else {
		rows := [][]string{{"id", "reason", "source", "output", "since", "tries", "next try", "record", "key"}}
		for i := range all.Parked {
			p := &all.Parked[i]
			source, rec := p.Source, ""
			if source == "" {
				source = p.Bucket
			}
			if p.Record != nil {
				rec = fmt.Sprint(*p.Record)
			}
			rows = append(rows, []string{
				string(p.ID), string(p.Reason), clean(source), clean(p.Output), inUTC(p.FirstSeen),
				fmt.Sprint(p.Attempts), nextTry(p), rec, clean(p.Key),
			})
		}
		grid(&b, rows, len(rows[0]))
	}
	if all.More > 0 {
		fmt.Fprintf(&b, "%s more (--limit 0 lists all)\n", number(float64(all.More)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func nextTry(p *control.ParkedEntry) string {
	switch {
	case p.Skipped != nil:
		return "skipped"
	case p.NextTry == nil:
		return "by order"
	}
	return inUTC(*p.NextTry)
}

func newParkedShowCommand() *cobra.Command {
	var asJSON, content bool
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show one parked entry: where it is, what went wrong, what to do",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if asJSON && content {
				return errors.New("--content does not go with --json")
			}
			conf, err := load(c)
			if err != nil {
				return err
			}
			all, err := askParked(c, conf, parkedFilter{ids: []progress.ParkedID{progress.ParkedID(args[0])}})
			if err != nil {
				return err
			}
			if len(all.Parked) == 0 {
				return failed(unknown([]progress.ParkedID{progress.ParkedID(args[0])}))
			}
			p := &all.Parked[0]
			if asJSON {
				return failed(json.NewEncoder(c.OutOrStdout()).Encode(struct {
					Schema int `json:"schema"`
					*control.ParkedEntry
				}{control.Schema, p}))
			}
			if err := showParked(c.OutOrStdout(), p); err != nil || !content {
				return failed(err)
			}
			return failed(showContent(c.Context(), c.OutOrStdout(), conf, p))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&content, "content", false, "read the object and print its first bytes, which may hold what is confidential")
	return c
}

func unknown(ids []progress.ParkedID) error {
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = string(id)
	}
	return &fault.Error{
		Err:  fmt.Errorf("nothing is parked under %s", clean(strings.Join(text, ", "))),
		Hint: "it was mistyped, or has been delivered by now: trailpoll parked list shows what there is",
	}
}

func showParked(w io.Writer, p *control.ParkedEntry) error {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%-12s %s\n", name, clean(value)) }
	line("id", string(p.ID))
	source := p.Source
	if source == "" {
		source = "none of those configured"
	}
	line("source", source)
	line("output", p.Output)
	line("object", "s3://"+p.Bucket+"/"+p.Key)
	switch {
	case p.Record != nil:
		line("record", fmt.Sprintf("%d, counted from 0; the others of the object go on", *p.Record))
	case p.BrokenAt != nil:
		line("broken at", fmt.Sprintf("record %d, counted from 0", *p.BrokenAt))
	}
	if p.Delivered > 0 {
		line("delivered", plural(p.Delivered, "record")+" of it before")
	}
	line("reason", string(p.Reason))
	line("error", p.Error)
	line("parked since", inUTC(p.FirstSeen))
	line("attempts", fmt.Sprint(p.Attempts))
	if p.Skipped != nil {
		line("skipped", inUTC(*p.Skipped))
		line("remark", p.Remark)
	} else {
		line("next try", nextTry(p))
	}
	if r := remedy(p.Reason); r != "" {
		line("remedy", r)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// remedy says what an operator can do about what is parked for a reason.
func remedy(r record.Reason) string {
	switch r {
	case record.Corrupt, record.Truncated, record.TrailingData, record.NotJSON:
		return "the object in S3 is not whole: if an intact copy can be put in its place, do so and retry; else skip it with a remark"
	case record.Bomb:
		return "it inflates far beyond what CloudTrail writes: find out who wrote it, then skip it"
	case record.TooLarge:
		return "raise max_record above the record's size and retry"
	case record.Denied:
		return "allow s3:GetObject on the object, in the role's policy, the bucket's and the organisation's; it is tried again by itself"
	case record.KMSDenied:
		return "allow kms:Decrypt on the key, in the role's policy and the key's, and see that the key is enabled; it is tried again by itself"
	case record.Archived:
		return "restore the object from its archive class (RestoreObject); it is tried again by itself"
	case record.Changed:
		return "something writes over the object again and again: find out what; it is tried again by itself"
	case record.Refused:
		return "the receiver refuses this record: its own log says why; mend that and retry, or skip it"
	case record.Oversize:
		return "the receiver takes no record so large: raise its limit, and max_message for syslog, and retry"
	case record.UnreadableRecord:
		return "the record is not valid JSON in valid UTF-8, so it is not sent: look at it with --content, then skip it"
	}
	return ""
}

// orderFlags is what retry and skip are told.
type orderFlags struct {
	control.Order
	skip, asJSON bool
}

func newParkedRetryCommand() *cobra.Command {
	f := orderFlags{}
	c := &cobra.Command{
		Use:   "retry [ID…] [--all | --reason REASON]",
		Short: "Try parked entries again now",
		Long: "Try parked entries again now; those that are named also if they were skipped. Where no agent runs\n" +
			"they are tried when the next one does.",
		Args: cobra.ArbitraryArgs,
		RunE: f.run,
	}
	c.Flags().BoolVar(&f.All, "all", false, "all that are parked")
	c.Flags().StringVar((*string)(&f.Reason), "reason", "", "all that are parked for this `REASON`")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object")
	return c
}

func newParkedSkipCommand() *cobra.Command {
	f := orderFlags{skip: true}
	c := &cobra.Command{
		Use:   "skip ID… --remark TEXT",
		Short: "Set parked entries aside for good, with a remark",
		Long: "Set parked entries aside for good. They count as settled from then on; that they were skipped, when,\n" +
			"and the remark stay on record (parked list --skipped). parked retry ID takes it back.",
		Args: cobra.MinimumNArgs(1),
		RunE: f.run,
	}
	c.Flags().StringVar(&f.Remark, "remark", "", "why; kept for good")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object")
	return c
}

// maxRemark is how many bytes a remark may have.
const maxRemark = 1000

// checkOrder refuses an order that names nothing, or too much.
func checkOrder(o *control.Order, skip bool) error {
	switch {
	case skip && (o.All || o.Reason != ""):
		return errors.New("what is to be skipped is named by its id")
	case skip && strings.TrimSpace(o.Remark) == "":
		return errors.New("skipping needs a remark that says why: --remark TEXT")
	case len(o.Remark) > maxRemark:
		return fmt.Errorf("the remark has %d bytes, and at most %d are kept", len(o.Remark), maxRemark)
	case !skip && o.Remark != "":
		return errors.New("a remark goes with skip")
	case len(o.IDs) > 0 && (o.All || o.Reason != ""):
		return errors.New("ids don't go with --all or --reason")
	case len(o.IDs) == 0 && !o.All && o.Reason == "":
		return errors.New("name what is meant: ids, --all or --reason REASON")
	}
	return knownReason(o.Reason)
}

func (f *orderFlags) run(c *cobra.Command, args []string) error {
	for _, a := range args {
		f.IDs = append(f.IDs, progress.ParkedID(a))
	}
	if err := usage(checkOrder(&f.Order, f.skip)); err != nil {
		return err
	}
	conf, err := load(c)
	if err != nil {
		return err
	}
	client, err := connect(c, conf)
	if err != nil {
		return err
	}
	out := new(control.Ordered)
	if client != nil {
		defer client.Close()
		path := "/v1/parked/retry"
		if f.skip {
			path = "/v1/parked/skip"
		}
		err = failed(client.Do(c.Context(), http.MethodPost, path, &f.Order, out))
	} else {
		out, err = f.offline(c, conf)
	}
	if err != nil {
		return err
	}
	if f.asJSON {
		err = json.NewEncoder(c.OutOrStdout()).Encode(out)
	} else {
		err = f.say(c.OutOrStdout(), out, client != nil)
	}
	if err == nil && len(out.Unknown) > 0 {
		err = unknown(out.Unknown)
	} else if err == nil && len(out.Busy) > 0 {
		err = fmt.Errorf("%s being tried at this moment and left alone: ask again", isAre(len(out.Busy)))
	}
	return failed(err)
}

func isAre(n int) string {
	if n == 1 {
		return "1 entry is"
	}
	return fmt.Sprintf("%d entries are", n)
}

// offline carries the order out in the state itself.
func (f *orderFlags) offline(c *cobra.Command, conf *config.Config) (*control.Ordered, error) {
	o := agent.Order{IDs: f.IDs, All: f.All, Reason: f.Reason, Skip: f.skip, Remark: f.Remark}
	store, err := writeState(c, conf)
	if err != nil {
		return nil, err
	}
	if store == nil {
		return ordered(&agent.Ordered{Unknown: f.IDs}, nil), nil
	}
	changes, done, err := o.Changes(store, time.Now().UTC(), func(*progress.Entry) bool { return false })
	if err == nil {
		err = store.Commit(changes)
	}
	if err := errors.Join(err, store.Close()); err != nil {
		return nil, failed(err)
	}
	return ordered(done, sourceNames(conf)), nil
}

// ordered describes what became of an order.
func ordered(o *agent.Ordered, n names) *control.Ordered {
	out := &control.Ordered{
		Schema: control.Schema, Done: make([]control.ParkedEntry, 0, len(o.Done)),
		Unknown: append([]progress.ParkedID{}, o.Unknown...), Busy: append([]progress.ParkedID{}, o.Busy...),
	}
	for i := range o.Done {
		out.Done = append(out.Done, control.Describe(&o.Done[i], n[o.Done[i].Lane.Source]))
	}
	return out
}

func (f *orderFlags) say(w io.Writer, out *control.Ordered, running bool) error {
	entries := "1 entry"
	if len(out.Done) != 1 {
		entries = fmt.Sprintf("%s entries", number(float64(len(out.Done))))
	}
	var err error
	switch {
	case len(out.Done) == 0 && len(out.Unknown)+len(out.Busy) > 0: // the error says it
	case f.skip:
		_, err = fmt.Fprintf(w, "%s skipped\n", entries)
	case running:
		_, err = fmt.Fprintf(w, "%s tried again now; the log says how it goes\n", entries)
	default:
		_, err = fmt.Fprintf(w, "%s to be tried when the agent next runs\n", entries)
	}
	return err
}

// content is how many bytes of an object are shown, as stored and inflated.
const content = 512

// showContent prints the first bytes of a parked object.
func showContent(ctx context.Context, w io.Writer, conf *config.Config, p *control.ParkedEntry) error {
	for i := range conf.Sources {
		if s := &conf.Sources[i]; s.Name == p.Source {
			return printContent(ctx, w, conf, s, p.Key)
		}
	}
	return errors.New("reading the object: its source is not configured any more")
}
