package control

import (
	"encoding/json"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Status is the answer to GET /v1/status, and what `trailpoll status --json`
// prints, whether an agent runs or not.
type Status struct {
	Schema int       `json:"schema"`
	At     time.Time `json:"at"`
	Agent  Process   `json:"agent"`
	agent.Status
	// Jobs are the re-syncs, as `trailpoll resync list --json` has them.
	Jobs       json.RawMessage `json:"jobs"`
	Checkpoint Checkpoint      `json:"checkpoint"`
}

// Process is the agent as a process.
type Process struct {
	Running bool `json:"running"`
	// Crashed: none runs, and the last one ended without stopping in order.
	Crashed bool       `json:"crashed,omitempty"`
	PID     int        `json:"pid,omitempty"`
	Version string     `json:"version,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
}

// Checkpoint is how large the checkpoint is.
type Checkpoint struct {
	Size    int64 `json:"size_bytes"`
	Free    int64 `json:"free_bytes"` // of that, not in use
	Lanes   int   `json:"lanes"`
	Entries int   `json:"entries"` // settled objects remembered
	Parked  int   `json:"parked"`
	Skipped int   `json:"skipped"`
}

// Parked is the answer to GET /v1/parked, and what `trailpoll parked list
// --json` prints.
type Parked struct {
	Schema int           `json:"schema"`
	Parked []ParkedEntry `json:"parked"`
	// More: how many there are that are not listed.
	More int `json:"more,omitempty"`
}

// ParkedEntry is an object, or a single record of it, that is parked.
type ParkedEntry struct {
	ID progress.ParkedID `json:"id"`
	// Source is its name as configured; "" if the source no longer is.
	Source       string        `json:"source"`
	Output       string        `json:"output"`
	Organization string        `json:"organization"`
	Account      string        `json:"account"`
	Region       string        `json:"region"`
	LogType      string        `json:"log_type"`
	Bucket       string        `json:"bucket"`
	Key          string        `json:"key"`
	Record       *int          `json:"record"` // from 0; nil: the object, or what is left of it
	Reason       record.Reason `json:"reason"`
	Error        string        `json:"error"`
	// BrokenAt is the record at which the object could not be read on.
	BrokenAt *int `json:"broken_at_record,omitempty"`
	// Delivered is how many records were acknowledged before.
	Delivered int        `json:"delivered_records,omitempty"`
	Attempts  int        `json:"attempts"`
	FirstSeen time.Time  `json:"first_seen"`
	NextTry   *time.Time `json:"next_try"` // nil: only when an operator says so
	Skipped   *time.Time `json:"skipped,omitempty"`
	Remark    string     `json:"remark,omitempty"`
}

// Describe returns a parked entry for whoever asks. source is its source's
// name, as configured.
func Describe(e *progress.Entry, source string) ParkedEntry {
	p := ParkedEntry{
		ID: e.ID(), Source: source, Output: e.Lane.Output, Organization: e.Lane.Stream.Organization,
		Account: e.Lane.Stream.Account, Region: e.Lane.Stream.Region, LogType: e.Lane.Stream.LogType,
		Reason: e.Reason, Error: e.Error, Delivered: e.Acked.Len(), Attempts: e.Attempts, FirstSeen: e.FirstSeen.UTC(),
		Remark: e.Remark,
	}
	p.Bucket, p.Key = agent.ParkedKey(e)
	if e.Record != progress.WholeObject {
		p.Record = &e.Record
	} else if e.At >= 0 {
		p.BrokenAt = &e.At
	}
	if !e.NextTry.IsZero() {
		t := e.NextTry.UTC()
		p.NextTry = &t
	}
	if !e.Skipped.IsZero() {
		t := e.Skipped.UTC()
		p.Skipped = &t
	}
	return p
}

// Order is the body of POST /v1/parked/retry and /v1/parked/skip: entries by
// their ids, or all, or all that are parked for a reason.
type Order struct {
	IDs    []progress.ParkedID `json:"ids,omitempty"`
	All    bool                `json:"all,omitempty"`
	Reason record.Reason       `json:"reason,omitempty"`
	Remark string              `json:"remark,omitempty"` // with skip, which needs one
}

// Ordered is the answer to an Order, and what `trailpoll parked retry --json`
// and `skip --json` print.
type Ordered struct {
	Schema int           `json:"schema"`
	Done   []ParkedEntry `json:"done"`
	// Unknown are ids under which nothing is parked; Busy, entries that are
	// being tried at this moment, and were left alone.
	Unknown []progress.ParkedID `json:"unknown"`
	Busy    []progress.ParkedID `json:"busy"`
}
