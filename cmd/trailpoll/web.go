package main

import (
	"context"
	"runtime"
	"sync"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/control/page"
)

// listen serves the page, metrics and health as the configuration says, until
// stop is called.
func (d *desk) listen(ctx context.Context, conf *config.Agent, log zerolog.Logger) (stop func()) {
	if conf.Listen == "" {
		return func() {}
	}
	b := thisBuild()
	p, err := page.New(page.Config{
		Snapshot: d.snapshot, Coverage: d.coverage, History: d.history, Version: b.Version,
		Parked: func(limit int) (*control.Parked, error) {
			return listParked(d.store, *d.names.Load(), parkedFilter{limit: limit})
		},
	})
	if err != nil { // what is embedded can't be read: a test would have said so
		log.Error().Err(err).Msg("there is no status page; the agent works")
	}
	cfg := control.WebConfig{
		Addr: conf.Listen, Token: conf.ListenToken.Reveal(),
		Build:    control.Build{Version: b.Version, Commit: b.Commit, Go: runtime.Version()},
		Snapshot: d.snapshot,
		Coverage: d.coverage,
		Healthy:  func() error { _, err := d.store.Stats(); return err },
		Ready:    func() error { _, err := d.current(); return err },
		Log:      log,
	}
	if p != nil {
		cfg.Page = p
	}
	w := control.NewWeb(cfg)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx) })
	wg.Go(func() { d.history.Run(ctx, d.snapshot) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// coverage tells which days are settled.
func (d *desk) coverage(days int) (*control.Coverage, error) {
	a, err := d.current()
	if err != nil {
		return nil, err
	}
	c, err := a.Coverage(days)
	if err != nil {
		return nil, err
	}
	return &control.Coverage{Schema: control.Schema, Coverage: *c}, nil
}
