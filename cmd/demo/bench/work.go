package main

import (
	"math"
	"time"
)

// What agent and bare loop have in common.
const (
	downloads    = 16      // objects fetched at once
	connections  = 4       // to the receiver
	batchRecords = 1000    // records of a batch
	batchBytes   = 1 << 20 // bytes of a batch
)

// set is what stands in the bucket: log files of one size. Runs of works with
// the same set read the same bucket.
type set struct {
	objects, records int // records of one object
	large            int // bytes that a single object inflates to; 0 = ordinary ones
}

// total is how many records the set has.
func (s set) total() int { return s.objects * s.records }

// peakReach is how much memory the agent may have resident with
// memory = "32MiB", in bytes.
const peakReach = 64 << 20

// work is one thing to measure: a set, and what the agent does with it. The
// bare loop always does the same: it posts the set once, as plain NDJSON over
// plain HTTP.
type work struct {
	name      string
	set       set
	outputs   []output
	reach     float64       // the most that the ratio may be; 0 = none was set
	start     string        // of the source; "" = 30 days back
	downloads int           // of the agent; 0 = downloads
	tls       bool          // S3 and receiver over TLS, each with an authority of its own
	delay     time.Duration // of each of S3's answers
	others    bool          // compared with other ways, too
	rules     bool          // of the agent: ten filter rules, which leave nothing out
}

// output is one output of the agent.
type output struct {
	kind   string // https or syslog
	gzip   bool
	format string // of the body; "" = ndjson
	record string // form of a record; "" = raw
}

var (
	plain = []output{{kind: "https"}}
	large = set{objects: 1000, records: 500}
	small = set{objects: 20_000, records: 10}
)

// Two works that are compared with each other: filters may take so much of the
// throughput.
const (
	plainName  = "1,000 objects of 500 records"
	rulesName  = "1,000 of 500, ten filter rules"
	rulesReach = 0.4
)

// works are all that is measured beside the bare loop, the most telling first.
func works() []work {
	return []work{
		{name: plainName, set: large, outputs: plain, reach: 1.25, others: true},
		{name: "20,000 objects of 10 records", set: small, outputs: plain, reach: 1.3, others: true},
		{name: "1,000 of 500, gzip on", set: large, outputs: []output{{kind: "https", gzip: true}}, reach: 2.2},
		{name: "1,000 of 500, TLS both ways", set: large, outputs: plain, tls: true, reach: 1.35},
		{name: "1,000 of 500, syslog over TCP", set: large, outputs: []output{{kind: "syslog"}}, reach: 1.25},
		{name: "1,000 of 500, two outputs", set: large, outputs: []output{{kind: "https"}, {kind: "https"}}, reach: 1.6},
		{name: rulesName, set: large, outputs: plain, rules: true},
		{name: "1,000 of 500, Splunk HEC", set: large, outputs: []output{{kind: "https", format: "splunk-hec"}}},
		{name: "1,000 of 500, Elasticsearch _bulk", set: large, outputs: []output{{kind: "https", format: "elastic-bulk"}}},
		{name: "1,000 of 500, OTLP", set: large, outputs: []output{{kind: "https", format: "otlp"}}},
		{name: "1,000 of 500, records in an envelope", set: large, outputs: []output{{kind: "https", record: "envelope"}}},
		{name: "1,000 of 500, records as OCSF", set: large, outputs: []output{{kind: "https", record: "ocsf"}}},
		{name: "one object of 150 MB", set: set{objects: 1, records: 100_000, large: 150_000_000}, outputs: plain},
	}
}

// waits are the works with a distance between the agent and S3.
func waits() []work {
	const far, many = 30 * time.Millisecond, 64
	return []work{
		{name: "30 ms away, 64 downloads, 20,000 objects of 10", set: small, outputs: plain, downloads: many, delay: far, reach: 0.9},
		{name: "30 ms away, 64 downloads, 1,000 objects of 500", set: large, outputs: plain, downloads: many, delay: far},
	}
}

// chosen are those works that the flags ask for.
func chosen(o *options, from []work) (all []work) {
	for _, w := range from {
		if o.wants(w.name) {
			w.set = w.set.scaled(o.scale)
			all = append(all, w)
		}
	}
	return all
}

func (s set) scaled(by float64) set {
	if s.objects > 1 {
		s.objects = max(1, int(math.Round(float64(s.objects)*by)))
		return s
	}
	s.records = max(1, int(float64(s.records)*by))
	s.large = int(float64(s.large) * by)
	return s
}
