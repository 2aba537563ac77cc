package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Agent is the whole at work. New makes it, Run runs it once.
type Agent struct {
	cfg     Config
	sources []*source
	outputs []*delivery
	settler *settler
	trouble *troubles
	resyncs *resyncs

	unmet   atomic.Int32    // sources that have not been met since Run began
	mono    time.Time       // when Run began
	working context.Context // ends when the orderly stop begins
	stop    context.CancelCauseFunc

	nudge chan struct{} // something got on: see once.go
}

// New makes an Agent. It starts nothing and reads nothing.
func New(cfg Config) (*Agent, error) {
	if cfg.Downloads <= 0 {
		cfg.Downloads = max(16, 8*runtime.GOMAXPROCS(0))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.reach == nil {
		cfg.reach = reachBack
	}
	if cfg.DrainTimeout <= 0 {
		cfg.DrainTimeout = 20 * time.Second
	}
	a := &Agent{
		cfg:     cfg,
		trouble: newTroubles(cfg.Log),
		nudge:   make(chan struct{}, 1),
	}
	a.settler = newSettler(a)
	a.resyncs = newResyncs(a)
	for _, o := range cfg.Outputs {
		if o.BatchRecords < 1 || o.BatchBytes < 1 || o.Connections < 1 {
			return nil, fmt.Errorf("output %s: batches and connections must be at least 1", o.Name)
		}
		a.outputs = append(a.outputs, newDelivery(a, o))
	}
	for _, c := range cfg.Sources {
		var outs []*delivery
		for _, d := range a.outputs {
			if d.cfg.takes(c.Name) {
				outs = append(outs, d)
			}
		}
		if len(outs) == 0 {
			return nil, fmt.Errorf("source %s: no output takes it", c.Name)
		}
		a.sources = append(a.sources, newSource(a, c, outs))
	}
	return a, nil
}

// Result is what a run with Once came to.
type Result struct {
	// Unfinished says, for each source or output that made no progress or gave
	// up, why; the rest was done.
	Unfinished []string
}

// Run works until ctx ends and then stops in order: it stops listing and
// fetching, waits for what is being sent, commits what was acknowledged, and
// returns. It waits at most the drain timeout, and no longer than until abort
// ends. With Once it stops by itself when all is done.
//
// It returns an error only where the checkpoint failed for good.
func (a *Agent) Run(ctx, abort context.Context) (Result, error) {
	a.mono = time.Now()
	a.unmet.Store(int32(len(a.sources)))
	ctx, a.stop = context.WithCancelCause(ctx)
	defer a.stop(nil)
	a.working = ctx
	if err := a.resyncs.load(); err != nil {
		return Result{}, checkpointError(err)
	}
	a.resyncs.run(true)
	defer a.resyncs.run(false)
	abort, aborted := context.WithCancel(abort)
	defer aborted()

	// The order of the stop: each of these ends only when what feeds it has.
	var settling, sending, working sync.WaitGroup
	settling.Go(func() { a.settler.run(abort) })
	for _, d := range a.outputs {
		sending.Go(func() { d.run(ctx, abort) })
	}
	for _, s := range a.sources {
		working.Go(func() {
			defer s.timers.close()
			if err := s.run(ctx); err != nil {
				a.fail(err)
			}
		})
	}
	working.Go(func() { a.summarize(ctx) })
	working.Go(func() { a.maintain(ctx) })
	var result Result
	if a.ends() {
		working.Go(func() {
			result.Unfinished = a.untilDone(ctx)
			a.stop(errDone)
		})
	}

	<-ctx.Done()
	drain := time.AfterFunc(a.cfg.DrainTimeout, aborted)
	defer drain.Stop()
	working.Wait()
	sending.Wait()
	a.settler.close()
	settling.Wait()
	if abort.Err() != nil {
		a.cfg.Log.Warn().Msg("stopped before everything in flight was acknowledged: it will be sent again")
	}
	if cause := context.Cause(ctx); errors.Is(cause, errCheckpoint) {
		return result, cause
	}
	return result, nil
}

var errDone = errors.New("done")

// fail ends the run with an error.
func (a *Agent) fail(err error) { a.stop(err) }

// met notes that a source knows from where it goes on. When all do, what a
// lost state has meant for them is done with.
func (a *Agent) met() error {
	k, ok := a.cfg.Checkpoint.(Keeper)
	if a.unmet.Add(-1) > 0 || !ok || !k.Rebuilt() {
		return nil
	}
	return k.ClearRebuilt()
}

// leave takes the lanes of an output out of all listings.
func (a *Agent) leave(d *delivery) {
	for _, s := range a.sources {
		for _, st := range s.all() {
			st.leave(d)
		}
		s.queue.leave(d)
		s.resyncer.nudge()
	}
}

// enter puts the lanes of an output into the listings.
func (a *Agent) enter(d *delivery) {
	a.settler.forgetOrdered(d.cfg.Name)
	for _, s := range a.sources {
		for _, st := range s.all() {
			st.enter(d)
		}
		s.resyncer.nudge()
	}
}

// room tells fetchers that an output takes more records.
func (a *Agent) room(d *delivery) {
	for _, s := range a.sources {
		if d.cfg.takes(s.cfg.Name) {
			s.queue.wake()
		}
	}
}

// maintain has the checkpoint look after itself every hour.
func (a *Agent) maintain(ctx context.Context) {
	k, ok := a.cfg.Checkpoint.(Keeper)
	if !ok {
		return
	}
	for sleep(ctx, jitter(time.Hour)) {
		if err := k.Maintain(ctx, a.sources[0].now()); err != nil && ctx.Err() == nil {
			a.trouble.met("maintaining the checkpoint", err, "")
		} else {
			a.trouble.over("maintaining the checkpoint")
		}
	}
}
