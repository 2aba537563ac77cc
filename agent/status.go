package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// Status is how the agent does at one moment. It is the caller's own.
type Status struct {
	Sources []SourceStatus `json:"sources"`
	Streams []StreamStatus `json:"streams"` // those furthest behind first
	Outputs []OutputStatus `json:"outputs"`
	Commits Latency        `json:"-"` // of the checkpoint's commits
}

// The states of sources and outputs.
const (
	StateOK = "ok"
	// StateRetrying: the last attempt failed, in a way that may pass.
	StateRetrying = "retrying"
	// StateHeld: an output is left alone but for a probe; its lanes stand still.
	// Or it refuses every record: what is new is tried, too.
	StateHeld = "held"
	// StateStopped: no agent runs.
	StateStopped = "stopped"
)

// SourceStatus is how a source does. The counts are since the agent began.
type SourceStatus struct {
	Name   string `json:"name"`
	Bucket string `json:"bucket"`
	Prefix string `json:"prefix"`
	// State is StateOK, StateRetrying (the bucket can't be listed) or StateStopped.
	State string `json:"state"`
	Error string `json:"error"`
	// Since is since when it is in trouble; nil if it is not.
	Since   *time.Time `json:"since"`
	Streams int        `json:"streams"`
	// Troubles are all that go on now.
	Troubles []Trouble `json:"troubles"`

	Lists   int64 `json:"lists"`
	Gets    int64 `json:"gets"`
	Bytes   int64 `json:"received_bytes"`
	Records int64 `json:"records"`
	// Objects are those settled, for each output one; NewlyParked how often an
	// object or a record was parked; Gone, objects that went before they were
	// read; Foreign, entries of listings that are no log files.
	Objects     int64 `json:"objects_settled"`
	NewlyParked int64 `json:"newly_parked"`
	Gone        int64 `json:"objects_gone"`
	Foreign     int64 `json:"not_log_files"`

	Parked  int   `json:"parked"`
	Waiting int   `json:"waiting_objects"` // to be fetched
	Memory  int64 `json:"memory_used_bytes"`
}

// Trouble is something that fails at this moment.
type Trouble struct {
	What     string    `json:"what"`
	Error    string    `json:"error"`
	Since    time.Time `json:"since"`
	Failures int       `json:"failures"`
}

// StreamStatus is how a stream does. Of its outputs it tells the worst.
type StreamStatus struct {
	Source       string `json:"source"`
	Organization string `json:"organization"` // "" where there is no such level
	Account      string `json:"account"`
	AccountName  string `json:"account_name,omitempty"`
	Region       string `json:"region"`
	LogType      string `json:"log_type"`
	LaneStatus
	ListsPerHour int          `json:"lists_per_hour"`
	Outputs      []LaneStatus `json:"outputs"`
}

// LaneStatus is how far a stream is for one output.
type LaneStatus struct {
	Output string `json:"output,omitempty"`
	// Lag is now less the stamp of the newest settled object, in seconds; nil
	// if none is yet. A stream in which nothing happens lags, too.
	Lag *int64 `json:"lag_seconds"`
	// Behind is how long ago, in seconds, the stream was last listed to its end
	// with everything in it settled: all that was in the bucket then has
	// arrived. It grows when something is wrong, and not when nothing happens.
	Behind int64 `json:"behind_seconds"`
	// LastObject is the newest settled object's whole key; "" if there is none.
	LastObject string `json:"last_object"`
	// LastStamp is the stamp in its name; nil if there is none.
	LastStamp *time.Time `json:"last_stamp"`
	// Pending objects were found and are not settled. Of a lane whose output is
	// held none are known: it stands still.
	Pending int `json:"pending"`
	Parked  int `json:"parked"` // objects and records that are parked
}

// OutputStatus is how an output does. The counts are since the agent began.
type OutputStatus struct {
	Name string `json:"name"`
	// State is StateOK, StateRetrying, StateHeld or StateStopped.
	State            string  `json:"state"`
	RecordsPerSecond float64 `json:"records_per_second"` // over the last minute
	// InFlight are records sent and not acknowledged, Waiting those in memory
	// that are to be sent.
	InFlight int64  `json:"in_flight"`
	Waiting  int    `json:"waiting"`
	Error    string `json:"error"`
	// Since is since when attempts have failed; nil if they don't.
	Since *time.Time `json:"since"`
	// Unacknowledged: the transport has no acknowledgement, so a record counts
	// as settled once it is written.
	Unacknowledged bool  `json:"unacknowledged,omitempty"`
	Records        int64 `json:"records"` // acknowledged
	Batches        int64 `json:"batches"` // attempts to send one
	Retries        int64 `json:"retries"` // ... that failed and are made again
	Repeats        int64 `json:"repeats"` // records sent more than once by that
	Parked         int   `json:"parked"`

	Latency Latency `json:"-"` // of attempts
}

// laneSeen is what a lane knows for whoever asks how it does.
type laneSeen struct {
	newest   string    // position of the newest settled object, by stamp; "" if none
	stamp    time.Time // its stamp
	passed   time.Time // when the last pass that listed to the end began, by S3's clock
	complete time.Time // the same of the last after which nothing was open
}

// recall takes from the lane's head what it says of the time before.
func (l *lane) recall() {
	l.seen.complete = later(l.begin.FirstSeen, l.head.Hourly)
	if l.head.Watermark == l.of.floor(l.begin.Start) {
		return // nothing has been settled
	}
	if t, ok := cloudtrail.Instant(l.head.Watermark); ok {
		l.seen.newest, l.seen.stamp = l.head.Watermark, t
	}
}

// settledHere notes that an object is settled.
func (l *lane) settledHere(t *target) {
	if t.object.Stamp.After(l.seen.stamp) || l.seen.newest == "" {
		l.seen.newest, l.seen.stamp = t.position, t.object.Stamp
	}
	if len(l.open) == 0 {
		l.seen.complete = later(l.seen.complete, l.seen.passed)
	}
}

// listedToEnd notes that a pass that began at that time has listed all.
func (l *lane) listedToEnd(began time.Time) {
	l.seen.passed = began
	if len(l.open) == 0 {
		l.seen.complete = later(l.seen.complete, began)
	}
}

// status returns how the lane does; the stream's mutex is held.
func (l *lane) status(now time.Time) LaneStatus {
	s := LaneStatus{
		Output: l.id.Output, Behind: seconds(now.Sub(l.seen.complete)), Pending: len(l.open),
	}
	if l.seen.newest != "" {
		s.newest(l.of.prefix, l.seen.newest, l.seen.stamp, now)
	}
	return s
}

func (s *LaneStatus) newest(prefix, position string, stamp, now time.Time) {
	s.LastObject, s.LastStamp = prefix+position, &stamp
	lag := seconds(now.Sub(stamp))
	s.Lag = &lag
}

// seconds rounds down, and takes what lies ahead for now: S3's clock and those
// that gave the names need not agree.
func seconds(d time.Duration) int64 { return int64(max(0, d) / time.Second) }

// Status returns how the agent does. It takes each lock for a moment, so that
// the work goes on; what it returns is of about the same time. parked is a
// count of what is parked.
func (a *Agent) Status(parked *Tally) Status {
	// Never nil, so that JSON has [] and not null.
	st := Status{Sources: []SourceStatus{}, Streams: []StreamStatus{}, Outputs: []OutputStatus{}}
	for _, s := range a.sources {
		st.Sources = append(st.Sources, s.status(parked))
		now := s.now()
		for _, x := range s.all() {
			st.Streams = append(st.Streams, x.status(now, parked))
		}
	}
	for _, d := range a.outputs {
		st.Outputs = append(st.Outputs, d.status(parked))
	}
	st.Commits = a.settler.took.snapshot()
	SortStreams(st.Streams)
	return st
}

// SortStreams puts the streams first that an operator should see first: those
// furthest behind, then those with most parked, pending, and lag.
func SortStreams(all []StreamStatus) {
	lag := func(s *StreamStatus) int64 {
		if s.Lag == nil {
			return 0
		}
		return *s.Lag
	}
	slices.SortStableFunc(all, func(x, y StreamStatus) int {
		return cmp.Or(
			// To the minute: within it, the order is not worth to jump about.
			cmp.Compare(y.Behind/60, x.Behind/60), cmp.Compare(y.Parked, x.Parked), cmp.Compare(y.Pending, x.Pending),
			cmp.Compare(lag(&y), lag(&x)),
			cmp.Compare(x.Source, y.Source), cmp.Compare(x.Organization, y.Organization), cmp.Compare(x.Account, y.Account),
			cmp.Compare(x.Region, y.Region), cmp.Compare(x.LogType, y.LogType),
		)
	})
}

// Narrow leaves of a stream the lane of one output, and reports whether it has one.
func (s *StreamStatus) Narrow(output string) bool {
	s.Outputs = slices.DeleteFunc(slices.Clone(s.Outputs), func(l LaneStatus) bool { return l.Output != output })
	s.worst()
	return len(s.Outputs) > 0
}

// worst makes the stream tell the worst of its outputs.
func (s *StreamStatus) worst() {
	s.LaneStatus = LaneStatus{}
	for i, l := range s.Outputs {
		w := &s.LaneStatus
		w.Behind, w.Pending, w.Parked = max(w.Behind, l.Behind), max(w.Pending, l.Pending), w.Parked+l.Parked
		// Without any settled object a lane is the furthest that can be.
		if i == 0 || w.Lag != nil && (l.Lag == nil || *l.Lag > *w.Lag) {
			w.Lag, w.LastObject, w.LastStamp = l.Lag, l.LastObject, l.LastStamp
		}
	}
}

func (s *source) status(parked *Tally) SourceStatus {
	st := SourceStatus{
		Name: s.cfg.Name, Bucket: s.cfg.Bucket, Prefix: s.cfg.Prefix, State: StateOK, Streams: len(s.all()),
		Troubles: s.trouble.all(),
		Lists:    s.count.lists.Load(), Gets: s.count.gets.Load(), Bytes: s.count.bytes.Load(), Records: s.count.records.Load(),
		Objects: s.count.objects.Load(), NewlyParked: s.count.parked.Load(), Gone: s.count.gone.Load(), Foreign: s.count.foreign.Load(),
		Parked: parked.Sources[s.id], Waiting: s.queue.len(), Memory: s.memory.budget.used(),
	}
	for _, t := range st.Troubles {
		if t.What == whatListing {
			st.State, st.Error, st.Since = StateRetrying, t.Error, &t.Since
		}
	}
	s.mu.Lock()
	failed := s.since.failed
	s.mu.Unlock()
	if failed != nil && st.State == StateOK {
		st.State, st.Error = StateRetrying, failed.Error()
	}
	return st
}

func (st *stream) status(now time.Time, parked *Tally) StreamStatus {
	s := st.describe()
	s.ListsPerHour = st.lists.perHour()
	st.mu.Lock()
	for _, l := range st.lanes {
		s.Outputs = append(s.Outputs, l.status(now))
	}
	st.mu.Unlock()
	for i := range s.Outputs {
		s.Outputs[i].Parked = parked.Lanes[progress.Lane{Source: st.source.id, Stream: st.id, Output: s.Outputs[i].Output}]
	}
	s.worst()
	return s
}

func (st *stream) describe() StreamStatus {
	return describe(&st.source.cfg, st.id)
}

func describe(c *SourceConfig, id progress.Stream) StreamStatus {
	return StreamStatus{
		Source: c.Name, Organization: id.Organization, Account: id.Account, AccountName: c.AccountInfo[id.Account].Name,
		Region: id.Region, LogType: id.LogType,
	}
}

func (d *delivery) status(parked *Tally) OutputStatus {
	st := OutputStatus{
		Name: d.cfg.Name, State: StateOK, RecordsPerSecond: d.sent.perSecond(),
		InFlight: d.flying.Load(), Unacknowledged: d.cfg.Unacknowledged,
		Records: d.sent.total.Load(), Batches: d.batches.Load(), Retries: d.retries.Load(), Repeats: d.repeats.Load(),
		Parked: parked.Outputs[d.cfg.Name], Latency: d.took.snapshot(),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	st.Waiting = d.records
	var since time.Time
	if st.State, since = d.state(); st.State != StateOK {
		if !since.IsZero() {
			since = since.UTC()
			st.Since = &since
		}
		if d.lastErr != nil {
			st.Error = d.lastErr.Error()
		}
	}
	return st
}

// state says how the output does, and since when it has not done well; mu is
// held. One that refuses much counts as held, though its lanes go on: it takes
// nothing, and is tried slowly.
func (d *delivery) state() (state string, since time.Time) {
	switch {
	case d.held:
		return StateHeld, d.failing
	case d.doubt.on() && d.doubt.records >= refusedAll:
		return StateHeld, d.doubt.since
	case d.doubt.on():
		return StateRetrying, d.doubt.since
	case !d.failing.IsZero():
		return StateRetrying, d.failing
	}
	return StateOK, time.Time{}
}

// all returns what goes on, the oldest first; never nil.
func (t *troubles) all() []Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Trouble, 0, len(t.open))
	for what, o := range t.open {
		all = append(all, Trouble{What: what, Error: o.err, Since: o.since.UTC(), Failures: o.times})
	}
	slices.SortFunc(all, func(x, y Trouble) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.What, y.What)) })
	return all
}
