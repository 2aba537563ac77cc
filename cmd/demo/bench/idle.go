package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// The idle pass: what it costs to find that nothing is new, in an estate of 50
// accounts and 17 regions with four objects a day and stream.
const (
	idleName     = "idle pass over 850 streams"
	idleAccounts = 50
	idleRegions  = 17
	idleDays     = 2 // that the agent settles first; older days are in the bucket, before start
	idleHistory  = 90
	idleDelay    = 30 * time.Millisecond // of each request
	idleReachCPU = 0.4                   // seconds
	idleReach    = 2.5                   // seconds by the wall
)

// idleCost is what the idle pass took.
type idleCost struct {
	Streams int    `json:"streams"`
	Objects int    `json:"objects"`
	Runs    []cost `json:"runs"`
	Median  cost   `json:"median"`
	// Others list the whole bucket.
	Others []listing `json:"others,omitempty"`
}

// measureIdle has the agent settle an estate, and then measures runs that find
// nothing new, with a delay on each request.
func (e *environment) measureIdle(ctx context.Context, n int) (m *idleCost, err error) {
	st, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	s3 := st.s3
	body, _, err := makeBodies(set{objects: 1, records: 1})
	if err != nil {
		return nil, err
	}
	s3.CreateBucket(bucketName)
	now := time.Now().UTC()
	m = &idleCost{Streams: idleAccounts * idleRegions}
	s3.PutAll(bucketName, idleKeys(now, &m.Objects), s3test.Object{Body: body[0], LastModified: now.Add(-idleDays * 24 * time.Hour)})

	dir, err := os.MkdirTemp("", "trailpoll-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	config, err := configure(dir, e.memory, st, &work{outputs: []output{{kind: "https"}}, start: fmt.Sprintf("-%dd", idleDays)})
	if err != nil {
		return nil, err
	}
	args := []string{"run", "--once", "--config", config}
	if _, err := runChild(ctx, e.agent, args); err != nil {
		return nil, fmt.Errorf("settling the estate: %w", err)
	}
	s3.Inject(func(string, string, string, int) s3test.Fault { return s3test.Fault{Delay: idleDelay} })
	var cpu, wall []float64
	for i := range n {
		s3.ResetCounts()
		c, err := runChild(ctx, e.agent, args)
		if err != nil {
			return nil, fmt.Errorf("running the agent: %w", err)
		}
		c.asked(s3)
		m.Runs = append(m.Runs, c)
		cpu, wall = append(cpu, c.CPU), append(wall, c.Wall)
		fmt.Fprintf(e.stderr, "%s, run %d of %d: %d LISTs, %.2f CPU-seconds, %.2f s\n", idleName, i+1, n, c.Lists, c.CPU, c.Wall)
	}
	m.Median = m.Runs[0]
	m.Median.CPU, m.Median.Wall = spreadOf(cpu).Median, spreadOf(wall).Median
	m.Others, err = e.measureLists(ctx, st, m.Objects)
	return m, err
}

// idleKeys are the keys of the estate, in S3's order.
func idleKeys(now time.Time, n *int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for a := range idleAccounts {
			for r := range idleRegions {
				region := fmt.Sprintf("eu-test-%c%c", 'a'+r/10, 'a'+r%10)
				account := corpus.Account(a)
				for i := range idleHistory * 4 {
					stamp := now.Add(-idleHistory*24*time.Hour + time.Duration(i)*6*time.Hour).Truncate(slot)
					*n++
					if !yield(fmt.Sprintf("AWSLogs/%s/CloudTrail/%s-1/%s/%s_CloudTrail_%s-1_%s_%016X.json.gz", account, region,
						stamp.Format("2006/01/02"), account, region, stamp.Format("20060102T1504Z"), uint64(*n)*0x9e3779b97f4a7c15)) {
						return
					}
				}
			}
		}
	}
}

// String says what the idle pass took.
func (m *idleCost) String() string {
	said := fmt.Sprintf("An %s, %d objects in the bucket, %v added to each request: %d LISTs and %d GETs,\n"+
		"%.2f CPU-seconds (reach: %.1f) and %.2f s by the wall (reach: %.1f), the program's start and end included; median of %d runs.\n",
		idleName, m.Objects, idleDelay, m.Median.Lists, m.Median.Gets, m.Median.CPU, idleReachCPU, m.Median.Wall, idleReach, len(m.Runs))
	for i := range m.Others {
		o := &m.Others[i]
		said += fmt.Sprintf("To list all of that bucket with %s: %d LISTs, %.2f CPU-seconds and %.2f s.\n", o.Name, o.Cost.Lists, o.Cost.CPU, o.Cost.Wall)
	}
	return said
}
