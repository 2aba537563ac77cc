package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/checkpoint"
)

// names tells how sources are called in the configuration.
type names map[progress.SourceID]string

func sourceNames(conf *config.Config) names {
	n := make(names, len(conf.Sources))
	for i := range conf.Sources {
		s := &conf.Sources[i]
		n[agent.SourceID(s.Bucket.Name, s.Bucket.Prefix)] = s.Name
	}
	return n
}

// readState opens the state for reading, while no agent runs. It returns nil
// if there is none yet.
func readState(conf *config.Config) (*checkpoint.Store, error) {
	s, err := checkpoint.OpenReadOnly(conf.Agent.StateDir, 0)
	if errors.Is(err, checkpoint.ErrNoState) {
		return nil, nil
	}
	return s, heldError(conf, err)
}

// writeState opens the state for writing, while no agent runs. It returns nil
// if there is none yet: an order makes none.
func writeState(c *cobra.Command, conf *config.Config) (*checkpoint.Store, error) {
	s, err := readState(conf)
	if s == nil || err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, failed(err)
	}
	s, _, err = checkpoint.Open(conf.Agent.StateDir, checkpoint.Options{
		Notice: func(text string) { fmt.Fprintf(c.ErrOrStderr(), "trailpoll: %s\n", text) },
	})
	return s, heldError(conf, err)
}

// heldError tells an agent that holds the state and can't be asked from other
// trouble with the state.
func heldError(conf *config.Config, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, checkpoint.ErrHeld) {
		return &exitError{exitHeld, &fault.Error{
			Op: "reading the state in " + conf.Agent.StateDir, Err: fmt.Errorf("%w, and it serves no control socket", checkpoint.ErrHeld),
			Hint: "it may be starting or stopping: try again in a moment; its log says why if it could not make the socket",
		}}
	}
	return failed(err)
}

// parkedFilter is which parked entries are wanted. What is empty is any.
type parkedFilter struct {
	source, output, account string
	reason                  record.Reason
	ids                     []progress.ParkedID
	skipped                 bool // those that were skipped, instead of those that wait
	limit                   int
}

// query writes the filter as the socket takes it.
func (f *parkedFilter) query() string {
	q := make([]string, 0, 8)
	add := func(name, value string) {
		if value != "" {
			q = append(q, name+"="+url.QueryEscape(value))
		}
	}
	add("source", f.source)
	add("output", f.output)
	add("account", f.account)
	add("reason", string(f.reason))
	for _, id := range f.ids {
		add("id", string(id))
	}
	if f.skipped {
		add("skipped", "true")
	}
	add("limit", strconv.Itoa(f.limit))
	return "?" + strings.Join(q, "&")
}

func parkedQuery(r *http.Request) (f parkedFilter, err error) {
	q := r.URL.Query()
	f = parkedFilter{
		source: q.Get("source"), output: q.Get("output"), account: q.Get("account"), reason: record.Reason(q.Get("reason")),
		skipped: q.Get("skipped") == "true", limit: 1000,
	}
	for _, id := range q["id"] {
		f.ids = append(f.ids, progress.ParkedID(id))
	}
	for name := range q {
		if !slices.Contains([]string{"source", "output", "account", "reason", "id", "skipped", "limit"}, name) {
			err = fmt.Errorf("there is no parameter %q", name)
		}
	}
	if l := q.Get("limit"); l != "" && err == nil {
		if f.limit, err = strconv.Atoi(l); err == nil && f.limit < 0 {
			err = fmt.Errorf("limit %d is below 0", f.limit)
		}
	}
	if err != nil {
		return f, &control.StatusError{Status: http.StatusBadRequest, Err: err}
	}
	return f, knownReason(f.reason)
}

// knownReason refuses a reason that there is not.
func knownReason(r record.Reason) error {
	if r == "" || slices.Contains(control.Reasons(), r) {
		return nil
	}
	all := make([]string, 0, len(control.Reasons()))
	for _, x := range control.Reasons() {
		all = append(all, string(x))
	}
	return &control.StatusError{Status: http.StatusBadRequest, Err: &fault.Error{
		Err: fmt.Errorf("there is no reason %q", r), Hint: "the reasons are " + strings.Join(all, ", "),
	}}
}

// takes reports whether an entry is wanted.
func (f *parkedFilter) takes(e *progress.Entry, n names) bool {
	switch {
	case len(f.ids) > 0:
		return slices.Contains(f.ids, e.ID()) // whether it was skipped or not
	case e.Skipped.IsZero() == f.skipped,
		f.source != "" && n[e.Lane.Source] != f.source,
		f.output != "" && e.Lane.Output != f.output,
		f.account != "" && e.Lane.Stream.Account != f.account,
		f.reason != "" && e.Reason != f.reason:
		return false
	}
	return true
}

// listParked returns what is parked, by reason, then source and age. A limit of
// 0 is none.
func listParked(book agent.ParkedBook, n names, f parkedFilter) (*control.Parked, error) {
	out := &control.Parked{Schema: control.Schema, Parked: []control.ParkedEntry{}}
	err := book.Parked(func(e progress.Entry) bool {
		if f.takes(&e, n) {
			out.Parked = append(out.Parked, control.Describe(&e, n[e.Lane.Source]))
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Parked, func(a, b control.ParkedEntry) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Source, b.Source), a.FirstSeen.Compare(b.FirstSeen),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Output, b.Output), cmp.Compare(recordNumber(&a), recordNumber(&b)))
	})
	if f.limit > 0 && len(out.Parked) > f.limit {
		out.More = len(out.Parked) - f.limit
		out.Parked = out.Parked[:f.limit]
	}
	return out, nil
}

func recordNumber(p *control.ParkedEntry) int {
	if p.Record == nil {
		return progress.WholeObject
	}
	return *p.Record
}

// tally counts what is parked, and measures the checkpoint.
func tally(store *checkpoint.Store) (*agent.Tally, control.Checkpoint, error) {
	var c control.Checkpoint
	t, err := agent.NewTally(store)
	if err != nil {
		return nil, c, err
	}
	st, err := store.Stats()
	if err != nil {
		return nil, c, err
	}
	return t, control.Checkpoint{
		Size: st.Size, Free: st.Free, Lanes: st.Lanes, Entries: st.Entries, Parked: t.Total(), Skipped: t.Skipped,
	}, nil
}

// jobsAtRest are the re-syncs as the state has them: how much of its windows
// one has gone over is not known without an agent.
func jobsAtRest(store *checkpoint.Store, n names) ([]byte, error) {
	all, err := store.Resyncs()
	if err != nil {
		return nil, err
	}
	jobs := make([]resyncJob, 0, len(all))
	for _, r := range all {
		s := agent.ResyncStatus{Resync: r}
		for _, id := range r.Sources {
			s.SourceNames = append(s.SourceNames, cmp.Or(n[id], string(id)))
		}
		if r.State == progress.ResyncDone {
			s.Share = 1
		}
		jobs = append(jobs, jobOf(s))
	}
	return json.Marshal(jobs)
}

// atRest is the status while no agent runs, as the state has it.
func atRest(conf *config.Config, crashed bool) (*control.Status, error) {
	now := time.Now().UTC()
	st := &control.Status{Schema: control.Schema, At: now, Agent: control.Process{Crashed: crashed}, Jobs: []byte("[]")}
	store, err := readState(conf)
	if err != nil {
		return nil, err
	}
	cfg := agent.Config{}
	for i := range conf.Outputs {
		if o := &conf.Outputs[i]; o.Enabled {
			cfg.Outputs = append(cfg.Outputs, agent.OutputConfig{Name: o.Name, Sources: o.Sources, Unacknowledged: unacknowledged(o)})
		}
	}
	for i := range conf.Sources {
		s := &conf.Sources[i]
		if !s.Enabled {
			continue
		}
		c := agent.SourceConfig{Name: s.Name, Bucket: s.Bucket.Name, Prefix: s.Bucket.Prefix, AccountInfo: make(map[string]agent.AccountInfo)}
		for _, a := range s.Accounts {
			c.AccountInfo[a.ID] = agent.AccountInfo{Name: a.Name}
		}
		cfg.Sources = append(cfg.Sources, c)
	}
	t := new(agent.Tally)
	if store != nil {
		defer store.Close()
		cfg.Checkpoint = store
		if t, st.Checkpoint, err = tally(store); err != nil {
			return nil, failed(err)
		}
	}
	if store != nil {
		if st.Jobs, err = jobsAtRest(store, sourceNames(conf)); err != nil {
			return nil, failed(err)
		}
	}
	st.Status, err = agent.AtRest(&cfg, t, now)
	return st, failed(err)
}
