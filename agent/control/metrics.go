package control

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// topMetrics is how many streams have metrics of their own, those furthest
// behind first: a thousand accounts must not make a hundred thousand series.
const topMetrics = 50

// Snapshot is all that metrics are made of.
type Snapshot struct {
	*Status
	Parked *agent.Tally
}

// Build is what is known of the program.
type Build struct{ Version, Commit, Go string }

// metrics makes Prometheus' metrics of a snapshot at each scrape. Names and
// units are as https://prometheus.io/docs/practices/naming/ has them.
type metrics struct {
	snapshot func() (*Snapshot, error)
	build    Build
}

// newRegistry returns a registry of our own with all metrics.
func newRegistry(b Build, snapshot func() (*Snapshot, error)) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&metrics{snapshot, b},
	)
	return r
}

// desc describes one metric of ours.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("trailpoll_"+name, help, labels, nil)
}

// Describe sends nothing: which metrics there are depends on what is
// configured, and the registry checks them at each scrape.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of this moment.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	e := &exposition{ch}
	e.gauge(desc("build_info", "The program that runs; always 1.", "version", "commit", "goversion"), 1, m.build.Version, m.build.Commit, m.build.Go)
	s, err := m.snapshot()
	up := 0.0
	if err == nil {
		up = 1
	}
	e.gauge(desc("up", "Whether an agent is at work: 0 while it starts, stops or changes its configuration."), up)
	if err != nil {
		return
	}
	for i := range s.Sources {
		e.source(&s.Sources[i], s.Streams)
	}
	for i := range s.Outputs {
		e.output(&s.Outputs[i])
	}
	e.streams(s.Streams)
	e.parked(s)
	e.checkpoint(s)
}

// exposition is one scrape under way.
type exposition struct{ ch chan<- prometheus.Metric }

func (e *exposition) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\ufffd")
	}
	e.ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
}

func (e *exposition) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.GaugeValue, v, labels)
}

func (e *exposition) counter(d *prometheus.Desc, v int64, labels ...string) {
	e.send(d, prometheus.CounterValue, float64(v), labels)
}

func (e *exposition) histogram(d *prometheus.Desc, l *agent.Latency, labels ...string) {
	buckets := make(map[float64]uint64, len(l.Bounds))
	n := uint64(0)
	for i, c := range l.Counts {
		n += c
		if i < len(l.Bounds) {
			buckets[l.Bounds[i]] = n
		}
	}
	e.ch <- prometheus.MustNewConstHistogram(d, n, l.Sum, buckets, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (e *exposition) source(s *agent.SourceStatus, streams []agent.StreamStatus) {
	one := func(name, help string) *prometheus.Desc { return desc("source_"+name, help, "source") }
	e.gauge(one("up", "Whether the source's bucket can be listed."), truth(s.State == agent.StateOK), s.Name)
	e.gauge(one("streams", "Streams of the source."), float64(s.Streams), s.Name)
	e.counter(one("lists_total", "LIST requests made to S3."), s.Lists, s.Name)
	e.counter(one("gets_total", "GET requests made to S3."), s.Gets, s.Name)
	e.counter(one("received_bytes_total", "Bytes of objects read from S3, as stored."), s.Bytes, s.Name)
	e.counter(one("records_total", "Records read from objects."), s.Records, s.Name)
	e.counter(one("objects_settled_total", "Objects settled, counted for each output."), s.Objects, s.Name)
	e.counter(one("parkings_total", "How often an object or a record was parked."), s.NewlyParked, s.Name)
	e.counter(one("objects_gone_total", "Objects that had gone from the bucket before they were read."), s.Gone, s.Name)
	e.counter(one("foreign_entries_total", "Entries of listings that are no log files."), s.Foreign, s.Name)
	e.gauge(one("waiting_objects", "Objects that wait to be read."), float64(s.Waiting), s.Name)
	e.gauge(one("memory_used_bytes", "Memory taken by records in flight."), float64(s.Memory), s.Name)
	behind, pending := int64(0), 0
	for i := range streams {
		if streams[i].Source == s.Name {
			behind, pending = max(behind, streams[i].Behind), pending+streams[i].Pending
		}
	}
	e.gauge(one("behind_seconds", "How long ago the stream that is furthest behind was last listed to its end with everything in it settled."), float64(behind), s.Name)
	e.gauge(one("pending_objects", "Objects that were found and are not settled."), float64(pending), s.Name)
}

func (e *exposition) output(o *agent.OutputStatus) {
	one := func(name, help string, more ...string) *prometheus.Desc {
		return desc("output_"+name, help, append([]string{"output"}, more...)...)
	}
	state := one("state", "The output's state: 1 for the one it is in.", "state")
	for _, x := range []string{agent.StateOK, agent.StateRetrying, agent.StateHeld} {
		e.gauge(state, truth(o.State == x), o.Name, x)
	}
	since := 0.0
	if o.Since != nil {
		since = float64(o.Since.UnixMilli()) / 1000
	}
	e.gauge(one("failing_since_timestamp_seconds", "Since when attempts have failed; 0 if they don't."), since, o.Name)
	e.counter(one("records_total", "Records acknowledged by the receiver."), o.Records, o.Name)
	e.counter(one("batches_total", "Attempts to send a batch."), o.Batches, o.Name)
	e.counter(one("retries_total", "Attempts to send a batch that failed and were made again."), o.Retries, o.Name)
	e.counter(one("repeated_records_total", "Records sent more than once, because it was not known whether they had arrived."), o.Repeats, o.Name)
	e.gauge(one("in_flight_records", "Records sent and not acknowledged."), float64(o.InFlight), o.Name)
	e.gauge(one("waiting_records", "Records in memory that wait to be sent."), float64(o.Waiting), o.Name)
	e.histogram(one("send_duration_seconds", "How long an attempt to send a batch took, until its answer."), &o.Latency, o.Name)
}

func (e *exposition) streams(all []agent.StreamStatus) {
	labels := []string{"source", "organization", "account", "region", "log_type"}
	behind := desc("stream_behind_seconds", "How long ago the stream was last listed to its end with everything in it settled. Only of the 50 streams furthest behind.", labels...)
	lag := desc("stream_lag_seconds", "Now less the stamp of the newest settled object; it grows as well where nothing happens. Only of the 50 streams furthest behind.", labels...)
	for i := range all[:min(len(all), topMetrics)] {
		s := &all[i]
		e.gauge(behind, float64(s.Behind), s.Source, s.Organization, s.Account, s.Region, s.LogType)
		if s.Lag != nil {
			e.gauge(lag, float64(*s.Lag), s.Source, s.Organization, s.Account, s.Region, s.LogType)
		}
	}
}

// parked sends what is parked by reason, and 0 for the reasons that nothing is
// parked for, so that an alert sees the change.
func (e *exposition) parked(s *Snapshot) {
	d := desc("parked", "Objects and records that are parked now.", "source", "output", "reason")
	for i := range s.Sources {
		id := agent.SourceID(s.Sources[i].Bucket, s.Sources[i].Prefix)
		for k := range s.Outputs {
			for _, r := range Reasons() {
				n := s.Parked.Reasons[agent.ParkedGroup{Source: id, Output: s.Outputs[k].Name, Reason: r}]
				e.gauge(d, float64(n), s.Sources[i].Name, s.Outputs[k].Name, string(r))
			}
		}
	}
	e.gauge(desc("skipped", "Parked objects and records that an operator has set aside for good."), float64(s.Parked.Skipped))
}

func (e *exposition) checkpoint(s *Snapshot) {
	e.gauge(desc("checkpoint_size_bytes", "Size of the checkpoint's file."), float64(s.Checkpoint.Size))
	e.gauge(desc("checkpoint_free_bytes", "Part of the checkpoint's file that is not in use."), float64(s.Checkpoint.Free))
	e.gauge(desc("checkpoint_lanes", "Lanes that are remembered."), float64(s.Checkpoint.Lanes))
	e.gauge(desc("checkpoint_entries", "Settled objects that are remembered one by one."), float64(s.Checkpoint.Entries))
	e.histogram(desc("checkpoint_commit_duration_seconds", "How long a commit to the checkpoint took."), &s.Commits)
	var jobs []struct {
		State progress.ResyncState `json:"state"`
	}
	if err := unmarshal(s.Jobs, &jobs); err != nil {
		return
	}
	d := desc("resyncs", "Re-syncs that are not over, by state.", "state")
	count := make(map[progress.ResyncState]int)
	for _, j := range jobs {
		count[j.State]++
	}
	for _, st := range []progress.ResyncState{progress.ResyncQueued, progress.ResyncRunning} {
		e.gauge(d, float64(count[st]), string(st))
	}
}
