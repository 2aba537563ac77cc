package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// resyncDesk is where re-syncs are ordered: the agent that runs, or the state.
type resyncDesk interface {
	order(ctx context.Context, o agent.ResyncOrder) (resyncJob, error)
	count(ctx context.Context, o agent.ResyncOrder) (resyncEstimate, error)
	list(ctx context.Context) ([]resyncJob, error)
	cancel(ctx context.Context, id progress.ResyncID) (resyncJob, error)
}

// resyncRequest is the body of POST /v1/resync.
type resyncRequest struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Sources  []string  `json:"sources,omitempty"`
	Accounts []string  `json:"accounts,omitempty"`
	Regions  []string  `json:"regions,omitempty"`
	LogTypes []string  `json:"log_types,omitempty"`
	Outputs  []string  `json:"outputs,omitempty"`
	Resend   bool      `json:"resend,omitempty"`
	DryRun   bool      `json:"dry_run,omitempty"`
}

// resyncAnswer is what all of /v1/resync answers, and what the commands print.
type resyncAnswer struct {
	Schema   int             `json:"schema"`
	Jobs     []resyncJob     `json:"jobs,omitzero"`
	Estimate *resyncEstimate `json:"estimate,omitempty"`
}

// resyncJob is a re-sync as it is printed.
type resyncJob struct {
	ID       progress.ResyncID    `json:"id"`
	State    progress.ResyncState `json:"state"`
	From     time.Time            `json:"from"`
	To       time.Time            `json:"to"`
	Sources  []string             `json:"sources"`
	Outputs  []string             `json:"outputs"`
	Accounts []string             `json:"accounts,omitempty"`
	Regions  []string             `json:"regions,omitempty"`
	LogTypes []string             `json:"log_types,omitempty"`
	Resend   bool                 `json:"resend"`
	Created  time.Time            `json:"created"`
	Began    time.Time            `json:"began,omitzero"`
	Ended    time.Time            `json:"ended,omitzero"`

	Objects int64 `json:"objects"` // sent
	Passed  int64 `json:"passed"`  // were settled already
	Records int64 `json:"records"`
	Bytes   int64 `json:"objects_bytes"`

	Share float64  `json:"share"` // of the window, 0 to 1
	Day   string   `json:"day,omitempty"`
	Rate  float64  `json:"objects_per_second"`
	Left  float64  `json:"left_seconds,omitempty"`
	Lanes int      `json:"lanes"`
	Done  int      `json:"lanes_done"`
	Held  []string `json:"held_outputs,omitempty"`
	Out   []string `json:"left_out,omitempty"`
}

func (j *resyncJob) over() bool {
	return j.State == progress.ResyncDone || j.State == progress.ResyncCancelled
}

func jobOf(s agent.ResyncStatus) resyncJob {
	j := resyncJob{
		ID: s.ID, State: s.State, From: s.From, To: s.To, Sources: s.SourceNames, Outputs: s.Outputs,
		Accounts: s.Accounts, Regions: s.Regions, LogTypes: s.LogTypes, Resend: s.Resend,
		Created: s.Created, Began: s.Began, Ended: s.Ended,
		Objects: s.Count.Objects, Passed: s.Count.Passed, Records: s.Count.Records, Bytes: s.Count.Bytes,
		Share: s.Share, Rate: s.Rate, Left: s.Left.Seconds(), Lanes: s.Lanes, Done: s.LanesDone,
		Held: s.Held, Out: s.LeftOut,
	}
	if !s.Day.IsZero() {
		j.Day = s.Day.UTC().Format(time.DateOnly)
	}
	return j
}

func jobsOf(all []agent.ResyncStatus) []resyncJob {
	jobs := make([]resyncJob, 0, len(all))
	for _, s := range all {
		jobs = append(jobs, jobOf(s))
	}
	return jobs
}

// resyncEstimate is what a re-sync would do, as it is printed.
type resyncEstimate struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Streams int       `json:"streams"`
	Lists   int       `json:"lists"`
	Objects int64     `json:"objects"` // GETs
	Bytes   int64     `json:"objects_bytes"`
	Sends   int64     `json:"sends"` // objects, counted for each output
	Passed  int64     `json:"passed"`

	Requests float64 `json:"requests_usd"`
	KMS      float64 `json:"kms_usd"`
	Transfer float64 `json:"transfer_usd"`
	Total    float64 `json:"usd"`

	Failed []resyncFailure `json:"failed"`
}

type resyncFailure struct {
	Prefix string `json:"prefix"`
	Error  string `json:"error"`
	Remedy string `json:"remedy,omitempty"`
}

func estimateOf(e agent.ResyncEstimate) resyncEstimate {
	r := resyncEstimate{
		From: e.From, To: e.To, Streams: e.Streams, Lists: e.Lists, Objects: e.Objects, Bytes: e.Bytes,
		Sends: e.Sends, Passed: e.Passed, Failed: []resyncFailure{},
	}
	for _, f := range e.Failed {
		r.Failed = append(r.Failed, resyncFailure{f.Prefix, f.Err.Error(), fault.HintOf(f.Err)})
	}
	return r
}

// price says what the re-sync will cost; the count itself has cost the same
// LISTs.
func (e *resyncEstimate) price(p plan.Prices, kms bool) {
	e.Requests = (float64(e.Lists)*p.List + float64(e.Objects)*p.Get) / 1000
	if kms {
		e.KMS = float64(e.Objects) / 1000 * p.KMS
	}
	e.Transfer = float64(e.Bytes) / 1e9 * p.Transfer
	e.Total = e.Requests + e.KMS + e.Transfer
}

// resyncRoutes answers /v1/resync.
func (d *desk) resyncRoutes() {
	const path = "/v1/resync"
	d.server.Handle("GET "+path, func(http.ResponseWriter, *http.Request) (any, error) {
		a, err := d.current()
		if err != nil {
			return nil, err
		}
		all, err := a.Resyncs()
		if err != nil {
			return nil, err
		}
		return resyncAnswer{Schema: control.Schema, Jobs: jobsOf(all)}, nil
	})
	d.server.Handle("POST "+path, func(w http.ResponseWriter, r *http.Request) (any, error) {
		var q resyncRequest
		if err := control.Read(w, r, &q); err != nil {
			return nil, err
		}
		a, err := d.current()
		if err != nil {
			return nil, err
		}
		local := localResyncs{agent: a}
		o := agent.ResyncOrder{
			From: q.From, To: q.To, Sources: q.Sources, Accounts: q.Accounts, Regions: q.Regions,
			LogTypes: q.LogTypes, Outputs: q.Outputs, Resend: q.Resend,
		}
		if q.DryRun {
			e, err := local.count(r.Context(), o)
			return resyncAnswer{Schema: control.Schema, Estimate: &e}, refused(err)
		}
		job, err := local.order(r.Context(), o)
		return resyncAnswer{Schema: control.Schema, Jobs: []resyncJob{job}}, refused(err)
	})
	d.server.Handle("DELETE "+path+"/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		a, err := d.current()
		if err != nil {
			return nil, err
		}
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 32)
		if err != nil {
			return nil, &control.StatusError{Status: http.StatusBadRequest, Err: fmt.Errorf("%q is no re-sync's id", r.PathValue("id"))}
		}
		s, err := a.CancelResync(r.Context(), progress.ResyncID(id))
		return resyncAnswer{Schema: control.Schema, Jobs: []resyncJob{jobOf(s)}}, refused(err)
	})
}

// refused gives errors of orders their status: 404 if there is no such
// re-sync, 422 if there is nothing that it could be for.
func refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, agent.ErrNoResync):
		return &control.StatusError{Status: http.StatusNotFound, Err: err}
	case isRefusal(err):
		return &control.StatusError{Status: http.StatusUnprocessableEntity, Err: err}
	}
	return err
}

// remoteResyncs are those of the agent that runs.
type remoteResyncs struct{ client *control.Client }

func (r *remoteResyncs) do(ctx context.Context, method, path string, in any) (resyncAnswer, error) {
	var a resyncAnswer
	err := r.client.Do(ctx, method, path, in, &a)
	for n := 0; n < resyncAsks && between(err); n++ {
		select {
		case <-time.After(resyncEvery):
		case <-ctx.Done():
			return a, ctx.Err()
		}
		err = r.client.Do(ctx, method, path, in, &a)
	}
	if e, ok := errors.AsType[*control.StatusError](err); ok {
		switch e.Status {
		case http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusBadRequest:
			return a, &exitError{exitUsage, err}
		}
	}
	return a, err
}

// resyncAsks is how often an agent that is starting is asked again.
const resyncAsks = 10

// between reports whether the agent is between two configurations, or has not
// begun yet.
func between(err error) bool {
	e, ok := errors.AsType[*control.StatusError](err)
	return ok && e.Status == http.StatusServiceUnavailable
}

func requestOf(o agent.ResyncOrder) resyncRequest {
	return resyncRequest{
		From: o.From, To: o.To, Sources: o.Sources, Accounts: o.Accounts, Regions: o.Regions,
		LogTypes: o.LogTypes, Outputs: o.Outputs, Resend: o.Resend,
	}
}

func (r *remoteResyncs) order(ctx context.Context, o agent.ResyncOrder) (resyncJob, error) {
	a, err := r.do(ctx, http.MethodPost, "/v1/resync", requestOf(o))
	return onlyJob(a, err)
}

func (r *remoteResyncs) count(ctx context.Context, o agent.ResyncOrder) (resyncEstimate, error) {
	q := requestOf(o)
	q.DryRun = true
	a, err := r.do(ctx, http.MethodPost, "/v1/resync", q)
	if err != nil {
		return resyncEstimate{}, err
	}
	if a.Estimate == nil {
		return resyncEstimate{}, errAnswer
	}
	return *a.Estimate, nil
}

func (r *remoteResyncs) list(ctx context.Context) ([]resyncJob, error) {
	a, err := r.do(ctx, http.MethodGet, "/v1/resync", nil)
	return a.Jobs, err
}

func (r *remoteResyncs) cancel(ctx context.Context, id progress.ResyncID) (resyncJob, error) {
	a, err := r.do(ctx, http.MethodDelete, "/v1/resync/"+id.String(), nil)
	return onlyJob(a, err)
}

func onlyJob(a resyncAnswer, err error) (resyncJob, error) {
	if err != nil {
		return resyncJob{}, err
	}
	if len(a.Jobs) != 1 {
		return resyncJob{}, errAnswer
	}
	return a.Jobs[0], nil
}

// errAnswer: the agent that runs is of another version.
var errAnswer = errors.New("the agent's answer says nothing of the re-sync: it is of another version")
