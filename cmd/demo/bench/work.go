package main

import "math"

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

// work is one thing to measure: a set, and what the agent does with it. The
// bare loop always does the same: it posts the set once, as plain NDJSON.
type work struct {
	name    string
	set     set
	outputs []output
	reach   float64 // the ratio to stay under; 0 = none was set
	start   string  // of the source; "" = 30 days back
}

// output is one output of the agent.
type output struct {
	kind string // https or syslog
	gzip bool
}

// works are all that is measured, the most telling first.
func works() []work {
	plain := []output{{kind: "https"}}
	large := set{objects: 1000, records: 500}
	small := set{objects: 20_000, records: 10}
	return []work{
		{name: "1,000 objects of 500 records", set: large, outputs: plain, reach: 1.6},
		{name: "20,000 objects of 10 records", set: small, outputs: plain},
		{name: "1,000 of 500, gzip on", set: large, outputs: []output{{kind: "https", gzip: true}}},
		{name: "1,000 of 500, two outputs", set: large, outputs: []output{{kind: "https"}, {kind: "https"}}},
		{name: "1,000 of 500, syslog over TCP", set: large, outputs: []output{{kind: "syslog"}}},
		{name: "one object of 150 MB", set: set{objects: 1, records: 100_000, large: 150_000_000}, outputs: plain},
	}
}

// chosen are the works that the flags ask for.
func chosen(o *options) (all []work) {
	for _, w := range works() {
		if o.only != nil && !o.only.MatchString(w.name) {
			continue
		}
		if w.set.objects > 1 {
			w.set.objects = max(1, int(math.Round(float64(w.set.objects)*o.scale)))
		} else {
			w.set.records = max(1, int(float64(w.set.records)*o.scale))
			w.set.large = int(float64(w.set.large) * o.scale)
		}
		all = append(all, w)
	}
	return all
}
