package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
)

// ResyncEstimate is what a re-sync would do if it were ordered now.
type ResyncEstimate struct {
	From, To time.Time
	Streams  int
	Lists    int   // LISTs, as many as the counting itself has taken
	Objects  int64 // to fetch: GETs
	Bytes    int64 // of these, as stored
	Sends    int64 // objects to send, each counted once for each output
	Passed   int64 // settled already, counted in the same way
	// Failed are the listings that failed. What they would have found is
	// missing.
	Failed []SurveyFailure
}

// CountResync goes over a window as a re-sync does, and sends nothing. It may
// be called whether Run is at work or not. What comes to the bucket meanwhile
// may be counted or not.
func (a *Agent) CountResync(ctx context.Context, o ResyncOrder) (ResyncEstimate, error) {
	order, err := a.resolve(ctx, o, false)
	if err != nil {
		return ResyncEstimate{}, err
	}
	c := &resyncCounter{order: &resync{order: order}, sum: ResyncEstimate{From: order.From, To: order.To}}
	var work errgroup.Group
	work.SetLimit(2 * resyncWalks)
	for _, s := range a.sources {
		if !slices.Contains(order.Sources, s.id) {
			continue
		}
		lanes, err := s.resyncer.toCount(ctx, &order)
		if err != nil {
			return ResyncEstimate{}, fmt.Errorf("source %s: %w", s.cfg.Name, err)
		}
		for len(lanes) > 0 {
			st := lanes[0].of
			n := slices.IndexFunc(lanes, func(l *lane) bool { return l.of != st })
			if n < 0 {
				n = len(lanes)
			}
			these := lanes[:n]
			lanes = lanes[n:]
			work.Go(func() error { return c.stream(ctx, st, these) })
		}
	}
	if err := work.Wait(); err != nil {
		return ResyncEstimate{}, err
	}
	if err := ctx.Err(); err != nil {
		return ResyncEstimate{}, err
	}
	slices.SortFunc(c.sum.Failed, func(a, b SurveyFailure) int { return strings.Compare(a.Prefix, b.Prefix) })
	return c.sum, nil
}

// toCount returns the lanes that an order is for: those that are worked at or,
// if Run is not at work, as the checkpoint has them.
func (r *resyncer) toCount(ctx context.Context, o *progress.Resync) ([]*lane, error) {
	s := r.source
	if s.agent.resyncs.isRunning() {
		return r.lanes(o), nil
	}
	known, _, err := s.agent.cfg.Checkpoint.Source(s.id)
	if err != nil {
		return nil, err
	}
	s.known, s.heads = known, make(map[string]map[progress.Stream]progress.Head)
	for _, out := range s.outputs {
		if s.heads[out.cfg.Name], err = s.agent.cfg.Checkpoint.Heads(s.id, out.cfg.Name); err != nil {
			return nil, err
		}
	}
	ids, err := r.streams(ctx, false, func([]progress.Stream) bool { return true })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(ids, func(a, b progress.Stream) int { return strings.Compare(a.String(), b.String()) })
	var lanes []*lane
	for _, id := range ids {
		for _, l := range newStream(s, id).lanes {
			if o.Wants(&l.id) {
				lanes = append(lanes, l)
			}
		}
	}
	return lanes, nil
}

// resyncCounter is one count under way.
type resyncCounter struct {
	order *resync

	mu  sync.Mutex
	sum ResyncEstimate
}

// stream counts one stream for its lanes.
func (c *resyncCounter) stream(ctx context.Context, st *stream, lanes []*lane) error {
	s := st.source
	parts := make([]*resyncLane, len(lanes))
	for i, l := range lanes {
		covered, err := s.agent.resyncs.book.Covered(l.id)
		if err != nil {
			return err
		}
		parts[i] = &resyncLane{lane: l, of: c.order, covered: covered}
	}
	c.mu.Lock()
	c.sum.Streams++
	c.mu.Unlock()
	for day := c.order.order.From.Truncate(daily); day.Before(c.order.order.To); day = day.AddDate(0, 0, 1) {
		r := listing.Request{Prefix: st.prefix + dayFolder(day), Limit: resyncPage}
		for after := ""; ; {
			page, err := s.resyncer.list(ctx, r)
			c.mu.Lock()
			c.sum.Lists++
			if err != nil {
				c.sum.Failed = append(c.sum.Failed, SurveyFailure{Prefix: r.Prefix, Err: err})
			}
			c.mu.Unlock()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				break
			}
			files, end := st.entriesOf(page, &c.order.order, after)
			if err := c.page(files, parts); err != nil {
				return err
			}
			if page.Last() || end == after {
				break
			}
			after = end
			r.StartAfter = st.prefix + end
		}
	}
	return nil
}

// page counts the log files of one page.
func (c *resyncCounter) page(files []listed, parts []*resyncLane) error {
	positions := make([]string, len(files))
	for n := range files {
		positions[n] = files[n].position
	}
	fetch := make([]bool, len(files))
	var sum ResyncEstimate
	for _, x := range parts {
		states, err := x.lane.of.source.agent.cfg.Checkpoint.Lookup(x.lane.id, positions, nil)
		if err != nil {
			return err
		}
		for n := range files {
			if send, _ := x.wants(&files[n], states[n], progress.State{}); !send {
				sum.Passed++
				continue
			}
			sum.Sends++
			if !fetch[n] {
				fetch[n] = true
				sum.Objects++
				sum.Bytes += files[n].entry.Size
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.Objects += sum.Objects
	c.sum.Bytes += sum.Bytes
	c.sum.Sends += sum.Sends
	c.sum.Passed += sum.Passed
	return nil
}
