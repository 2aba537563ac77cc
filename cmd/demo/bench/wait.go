package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

// waited is what came of a work with a distance between the agent and S3.
type waited struct {
	Name      string  `json:"name"`
	Objects   int     `json:"objects"`
	Records   int     `json:"records"`
	Downloads int     `json:"downloads"`
	Delay     float64 `json:"delay_seconds"`
	Allowed   float64 `json:"allowed_objects_per_second"` // downloads ÷ delay
	Rate      float64 `json:"objects_per_second"`         // from the first GET to the last
	Share     float64 `json:"share"`                      // of what is allowed
	Reach     float64 `json:"reach,omitempty"`            // at least so much of it
	Runs      []cost  `json:"runs"`
	Bare      []cost  `json:"bare_runs"`
	BareRate  float64 `json:"bare_objects_per_second"` // what the bare loop gets, on this machine
	Peak      int64   `json:"peak_memory_bytes"`       // the most of all runs
}

// measureWait runs the agent n times with a delay before each of S3's answers.
func (e *environment) measureWait(ctx context.Context, w work, n int) (m *waited, err error) {
	st, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	in, err := fill(st.s3, w.set)
	if err != nil {
		return nil, err
	}
	m = &waited{
		Name: w.name, Objects: in.objects, Records: in.records, Downloads: w.downloads, Delay: w.delay.Seconds(),
		Allowed: float64(w.downloads) / w.delay.Seconds(), Reach: w.reach,
	}
	var mu sync.Mutex
	var first, last time.Time
	st.s3.Inject(func(op, _, _ string, _ int) s3test.Fault {
		if op == s3test.GetObject {
			mu.Lock()
			defer mu.Unlock()
			last = time.Now()
			if first.IsZero() {
				first = last
			}
		}
		return s3test.Fault{Delay: w.delay}
	})
	rate := func(c cost) float64 {
		mu.Lock()
		defer mu.Unlock()
		between := last.Sub(first)
		first = time.Time{}
		return float64(c.Gets) / (between + w.delay).Seconds()
	}
	var rates, bares []float64
	for i := range n {
		b, err := e.runBare(ctx, st, &w, "-downloads", strconv.Itoa(w.downloads))
		if err != nil {
			return nil, err
		}
		m.Bare, bares = append(m.Bare, b), append(bares, rate(b))
		c, err := e.runAgent(ctx, st, &w)
		if err != nil {
			return nil, err
		}
		m.Runs, rates = append(m.Runs, c), append(rates, rate(c))
		m.Peak = max(m.Peak, c.Peak)
		fmt.Fprintf(e.stderr, "%s, run %d of %d: %.0f objects/s, the bare loop %.0f; %.2f s in all, peak %s MiB\n",
			w.name, i+1, n, rates[i], bares[i], c.Wall, mebibytes(c.Peak))
	}
	m.Rate, m.BareRate = spreadOf(rates).Median, spreadOf(bares).Median
	m.Share = m.Rate / m.Allowed
	return m, nil
}
