package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// growth is what one more object costs as something else grows: CPU-seconds of
// a pass that finds new objects, less those of a pass just before that finds
// none. Both begin from the same state, so that the program's start, listings
// and history cancel out where they don't depend on the new objects.
type growth struct {
	Name   string        `json:"name"`
	Points []growthPoint `json:"points"`
	// Ratio is the cost at the last point ÷ the cost at the first.
	Ratio float64 `json:"ratio"`
	Reach float64 `json:"reach"`
}

type growthPoint struct {
	At      int     `json:"at"`
	Objects int     `json:"objects"` // new in each pass
	Records int     `json:"records"` // of them
	Idle    float64 `json:"idle_cpu_seconds"`
	CPU     float64 `json:"cpu_seconds"` // of the new objects
}

// perMillion is CPU-seconds for a million records.
func (p *growthPoint) perMillion() float64 { return p.CPU * 1e6 / float64(p.Records) }

const growthReach = 1.1

// estate is a bucket at one point of the growth.
type estate struct {
	at                     int
	streams, days, perDay  int // history, of objects of one record
	objects, recordsOfEach int // new in each pass
}

type growing struct {
	name   string
	points []estate
}

// growings are all kinds of growth.
func growings() []growing {
	all := []growing{{name: "growth: new objects of 500 records"}, {name: "growth: streams"}, {name: "growth: days of history"}}
	for _, n := range []int{10, 100, 1000} {
		all[0].points = append(all[0].points, estate{at: n, streams: 4, days: 1, perDay: 1, objects: n, recordsOfEach: 500})
	}
	for _, n := range []int{1, 10, 100, 1000} {
		all[1].points = append(all[1].points, estate{at: n, streams: n, days: 1, perDay: 1, objects: 4000, recordsOfEach: 10})
	}
	for _, n := range []int{1, 10, 90} {
		all[2].points = append(all[2].points, estate{at: n, streams: 4, days: n, perDay: 48, objects: 4000, recordsOfEach: 10})
	}
	return all
}

func (e *environment) measureGrowth(ctx context.Context, g growing, n int, scale float64) (*growth, error) {
	out := &growth{Name: g.name, Reach: growthReach}
	for _, at := range g.points {
		at.objects = max(1, int(float64(at.objects)*scale))
		at.streams = max(1, min(at.streams, int(float64(at.streams)*scale*2)))
		p, err := e.growthAt(ctx, at, n)
		if err != nil {
			return nil, fmt.Errorf("at %d: %w", at.at, err)
		}
		fmt.Fprintf(e.stderr, "%s, at %d: %.2f CPU-seconds per million records, beside %.2f of an idle pass\n", g.name, at.at, p.perMillion(), p.Idle)
		out.Points = append(out.Points, p)
	}
	out.Ratio = out.Points[len(out.Points)-1].perMillion() / out.Points[0].perMillion()
	return out, nil
}

func (e *environment) growthAt(ctx context.Context, at estate, n int) (p growthPoint, err error) {
	st, err := newStage()
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	one, _, err := makeBodies(set{objects: 1, records: 1})
	if err != nil {
		return p, err
	}
	bodies, _, err := makeBodies(set{objects: at.objects, records: at.recordsOfEach})
	if err != nil {
		return p, err
	}
	st.s3.CreateBucket(bucketName)
	now := time.Now().UTC()
	history := at.streams * at.days * at.perDay
	for i := range history {
		nth := i / at.streams
		stamp := now.Add(-2*time.Hour - time.Duration(nth)*24*time.Hour/time.Duration(at.perDay))
		st.s3.PutObject(bucketName, growthKey(i%at.streams, stamp, i), s3test.Object{Body: one[0], LastModified: stamp.Add(3 * time.Minute)})
	}
	dir, err := os.MkdirTemp("", "trailpoll-bench-")
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	config, err := configure(dir, e.memory, st, &work{outputs: plain, start: "-100d"})
	if err != nil {
		return p, err
	}
	if _, err := e.runAgentWith(ctx, st, config, history); err != nil {
		return p, fmt.Errorf("settling the history: %w", err)
	}
	p = growthPoint{At: at.at, Objects: at.objects, Records: at.objects * at.recordsOfEach}
	var idle, more []float64
	for pass := range n {
		none, err := e.runAgentWith(ctx, st, config, 0)
		if err != nil {
			return p, err
		}
		for i := range at.objects {
			stamp := now.Add(-50*time.Minute + time.Duration(i%10)*slot)
			key := growthKey(i%at.streams, stamp, (pass+1)<<32+i)
			st.s3.PutObject(bucketName, key, s3test.Object{Body: bodies[i%len(bodies)]})
		}
		some, err := e.runAgentWith(ctx, st, config, p.Records)
		if err != nil {
			return p, err
		}
		idle, more = append(idle, none.CPU), append(more, some.CPU-none.CPU)
	}
	p.Idle, p.CPU = spreadOf(idle).Median, spreadOf(more).Median
	return p, nil
}

func growthKey(stream int, stamp time.Time, n int) string {
	region := fmt.Sprintf("eu-test-%c%c-1", 'a'+stream%17/10, 'a'+stream%17%10)
	return logKey(corpus.Account(stream/17), region, stamp.Truncate(slot), n)
}
