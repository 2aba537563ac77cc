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
	// Ratio is the cost at the last point ÷ the cost at the first: the median
	// of those of each round, the least and the most.
	Ratio float64 `json:"ratio"`
	Least float64 `json:"ratio_least"`
	Most  float64 `json:"ratio_most"`
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

func (e *environment) measureGrowth(ctx context.Context, g growing, n int, scale float64) (_ *growth, err error) {
	out := &growth{Name: g.name, Reach: growthReach}
	var all []*grown
	defer func() {
		for _, p := range all {
			err = errors.Join(err, p.Close())
		}
	}()
	for _, at := range g.points {
		at.objects = max(1, int(float64(at.objects)*scale))
		at.streams = max(1, min(at.streams, int(float64(at.streams)*scale*2)))
		p, err := e.grow(ctx, at)
		if err != nil {
			return nil, fmt.Errorf("at %d: %w", at.at, err)
		}
		all = append(all, p)
	}
	// The points take turns, and are compared turn by turn: what else the
	// machine does meanwhile is the same for all of them, nearly.
	var ratios []float64
	for round := range growthRounds * n {
		for _, p := range all {
			if err := e.growthPass(ctx, p, round); err != nil {
				return nil, fmt.Errorf("at %d: %w", p.at.at, err)
			}
		}
		ratios = append(ratios, all[len(all)-1].last()/all[0].last())
	}
	for _, p := range all {
		point := p.point()
		fmt.Fprintf(e.stderr, "%s, at %d: %.2f CPU-seconds per million records, beside %.2f of an idle pass\n", g.name, point.At, point.perMillion(), point.Idle)
		out.Points = append(out.Points, point)
	}
	r := spreadOf(ratios)
	out.Ratio, out.Least, out.Most = r.Median, r.Min, r.Max
	return out, nil
}

// growthRounds is how many passes each point has, times -n.
const growthRounds = 2

// grown is a bucket at one point, what takes it, and what its passes took.
type grown struct {
	at         estate
	stage      *stage
	dir        string
	config     string
	now        time.Time
	bodies     [][]byte
	idle, more []float64
}

func (p *grown) Close() (err error) {
	if p.dir != "" {
		err = os.RemoveAll(p.dir)
	}
	return errors.Join(err, p.stage.Close())
}

func (p *grown) records() int { return p.at.objects * p.at.recordsOfEach }

// last is what a record cost in the last pass.
func (p *grown) last() float64 { return p.more[len(p.more)-1] / float64(p.records()) }

func (p *grown) point() growthPoint {
	return growthPoint{
		At: p.at.at, Objects: p.at.objects, Records: p.records(),
		Idle: spreadOf(p.idle).Median, CPU: spreadOf(p.more).Median,
	}
}

// grow makes a bucket with its history, and has the agent settle it.
func (e *environment) grow(ctx context.Context, at estate) (p *grown, err error) {
	st, err := newStage()
	if err != nil {
		return nil, err
	}
	p = &grown{at: at, stage: st, now: time.Now().UTC()}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	one, _, err := makeBodies(set{objects: 1, records: 1})
	if err != nil {
		return nil, err
	}
	if p.bodies, _, err = makeBodies(set{objects: at.objects, records: at.recordsOfEach}); err != nil {
		return nil, err
	}
	st.s3.CreateBucket(bucketName)
	history := at.streams * at.days * at.perDay
	for i := range history {
		nth := i / at.streams
		stamp := p.now.Add(-2*time.Hour - time.Duration(nth)*24*time.Hour/time.Duration(at.perDay))
		st.s3.PutObject(bucketName, growthKey(i%at.streams, stamp, i), s3test.Object{Body: one[0], LastModified: stamp.Add(3 * time.Minute)})
	}
	if p.dir, err = os.MkdirTemp("", "trailpoll-bench-"); err != nil {
		return nil, err
	}
	if p.config, err = configure(p.dir, e.memory, st, &work{outputs: plain, start: "-100d"}); err != nil {
		return nil, err
	}
	if _, err := e.runAgentWith(ctx, st, p.config, history); err != nil {
		return nil, fmt.Errorf("settling the history: %w", err)
	}
	return p, nil
}

// growthPass has the agent go over the bucket when nothing is new, and when
// something is.
func (e *environment) growthPass(ctx context.Context, p *grown, round int) error {
	none, err := e.runAgentWith(ctx, p.stage, p.config, 0)
	if err != nil {
		return err
	}
	for i := range p.at.objects {
		stamp := p.now.Add(-50*time.Minute + time.Duration(i%10)*slot)
		key := growthKey(i%p.at.streams, stamp, (round+1)<<32+i)
		p.stage.s3.PutObject(bucketName, key, s3test.Object{Body: p.bodies[i%len(p.bodies)]})
	}
	some, err := e.runAgentWith(ctx, p.stage, p.config, p.records())
	if err != nil {
		return err
	}
	p.idle, p.more = append(p.idle, none.CPU), append(p.more, some.CPU-none.CPU)
	return nil
}

func growthKey(stream int, stamp time.Time, n int) string {
	region := fmt.Sprintf("eu-test-%c%c-1", 'a'+stream%17/10, 'a'+stream%17%10)
	return logKey(corpus.Account(stream/17), region, stamp.Truncate(slot), n)
}
