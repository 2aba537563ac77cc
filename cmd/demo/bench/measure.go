package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

// environment is where programs are run.
type environment struct {
	self, agent string // programs
	memory      string
	install     bool      // programs to compare with, where they are missing
	stderr      io.Writer // for progress
}

// measured is what came of a work.
type measured struct {
	Name        string  `json:"name"`
	Objects     int     `json:"objects"`
	Records     int     `json:"records"`
	RecordBytes float64 `json:"record_bytes"` // in the middle
	StoredBytes int64   `json:"stored_bytes"` // of all objects
	Reach       float64 `json:"reach,omitempty"`
	PeakReach   int64   `json:"peak_memory_reach_bytes"`
	Pairs       []pair  `json:"pairs"`
	Agent       cost    `json:"agent"` // medians
	Bare        cost    `json:"bare"`
	Ratio       spread  `json:"ratio"` // of CPU-seconds, over the pairs
	Others      []other `json:"others,omitempty"`
}

// pair is one run of each program, one after the other.
type pair struct {
	Agent cost `json:"agent"`
	Bare  cost `json:"bare"`
}

// spread is the median of some numbers, with their ends.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(x []float64) spread {
	x = slices.Sorted(slices.Values(x))
	n := len(x)
	return spread{Median: (x[(n-1)/2] + x[n/2]) / 2, Min: x[0], Max: x[n-1]}
}

// measure does a work n times with each program. Which of them is first
// changes from pair to pair, so that neither gains from a machine that slows
// down or speeds up.
func (e *environment) measure(ctx context.Context, w work, n int) (m *measured, err error) {
	st, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	in, err := fill(st.s3, w.set)
	if err != nil {
		return nil, err
	}
	m = &measured{
		Name: w.name, Objects: in.objects, Records: in.records,
		RecordBytes: float64(in.inflated) / float64(in.records), StoredBytes: in.stored, Reach: w.reach,
	}
	for i := range n {
		var p pair
		runs := []func() error{
			func() (err error) { p.Bare, err = e.runBare(ctx, st, &w); return err },
			func() (err error) { p.Agent, err = e.runAgent(ctx, st, &w); return err },
		}
		if i%2 == 1 {
			slices.Reverse(runs)
		}
		for _, run := range runs {
			if err := run(); err != nil {
				return nil, err
			}
		}
		m.Pairs = append(m.Pairs, p)
		fmt.Fprintf(e.stderr, "%s, pair %d of %d: agent %.2f, bare loop %.2f CPU-seconds, ratio %.2f\n",
			w.name, i+1, n, p.Agent.CPU, p.Bare.CPU, p.Agent.CPU/p.Bare.CPU)
	}
	if w.others {
		if m.Others, err = e.measureOthers(ctx, st, &w, &in, min(n, 2)); err != nil {
			return nil, err
		}
	}
	m.conclude()
	m.PeakReach = peakReach
	return m, nil
}

// conclude draws the medians.
func (m *measured) conclude() {
	of := func(f func(*pair) float64) spread {
		var x []float64
		for i := range m.Pairs {
			x = append(x, f(&m.Pairs[i]))
		}
		return spreadOf(x)
	}
	m.Ratio = of(func(p *pair) float64 { return p.Agent.CPU / p.Bare.CPU })
	medians := func(c func(*pair) *cost) cost {
		return cost{
			CPU:   of(func(p *pair) float64 { return c(p).CPU }).Median,
			Wall:  of(func(p *pair) float64 { return c(p).Wall }).Median,
			Peak:  int64(of(func(p *pair) float64 { return float64(c(p).Peak) }).Median),
			Lists: int(of(func(p *pair) float64 { return float64(c(p).Lists) }).Median),
			Gets:  int(of(func(p *pair) float64 { return float64(c(p).Gets) }).Median),
		}
	}
	m.Agent = medians(func(p *pair) *cost { return &p.Agent })
	m.Bare = medians(func(p *pair) *cost { return &p.Bare })
}

// runBare runs the bare loop once; with more, flags of its own.
func (e *environment) runBare(ctx context.Context, st *stage, w *work, more ...string) (cost, error) {
	st.reset()
	c, err := runChild(ctx, e.self, append([]string{bareCommand, "-endpoint", st.s3.URL(), "-url", st.to.url + ingest}, more...))
	if err == nil {
		err = st.to.check(w.set.total())
	}
	if err != nil {
		return cost{}, fmt.Errorf("running the bare loop: %w", err)
	}
	c.asked(st.s3)
	return c, nil
}

// runAgent runs the agent once, from an empty state.
func (e *environment) runAgent(ctx context.Context, st *stage, w *work) (c cost, err error) {
	dir, err := os.MkdirTemp("", "trailpoll-bench-")
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	config, err := configure(dir, e.memory, st, w)
	if err != nil {
		return cost{}, err
	}
	return e.runAgentWith(ctx, st, config, w.set.total()*len(w.outputs))
}

// runAgentWith runs the agent once, as a configuration says, which is to bring
// so many records.
func (e *environment) runAgentWith(ctx context.Context, st *stage, config string, records int) (cost, error) {
	st.reset()
	c, err := runChild(ctx, e.agent, []string{"run", "--once", "--config", config})
	if err == nil {
		err = st.to.check(records)
	}
	if err != nil {
		return cost{}, fmt.Errorf("running the agent: %w", err)
	}
	c.asked(st.s3)
	return c, nil
}

// asked notes what a run asked of S3.
func (c *cost) asked(s3 *s3test.Server) {
	c.Lists, c.Gets = s3.Count(s3test.ListObjectsV2), s3.Count(s3test.GetObject)
}
