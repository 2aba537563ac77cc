package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/trailpoll/trailpoll/agent/config"
)

// manage runs the agent under systemd, if that started it and wants to hear of
// it.
func manage(r *runner) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		r.manager = nobody{}
		return r.run()
	}
	m := &systemManager{}
	r.manager = m
	defer m.close()
	return r.run()
}

// systemManager is the manager that Type=notify speaks of (sd_notify(3)). What it is
// told is a courtesy: that it can't be told is no reason to stop working.
type systemManager struct {
	once sync.Once
	wg   sync.WaitGroup
	done chan struct{}

	mu    sync.Mutex
	alive func() error
}

func (m *systemManager) tell(state string) { _, _ = daemon.SdNotify(false, state) }

func (m *systemManager) ready(conf *config.Config, alive func() error) {
	m.mu.Lock()
	if alive != nil {
		m.alive = alive
	}
	m.mu.Unlock()
	m.tell(fmt.Sprintf("%s\nSTATUS=working: %s, %s", daemon.SdNotifyReady, plural(len(conf.Sources), "source"), plural(len(conf.Outputs), "output")))
	m.once.Do(func() {
		m.done = make(chan struct{})
		every, err := daemon.SdWatchdogEnabled(false)
		if err != nil || every <= 0 {
			return
		}
		m.wg.Go(func() { m.watch(every / 3) })
	})
}

func (m *systemManager) reloading() { m.tell(daemon.SdNotifyReloading) }

// stopping also asks for the time that the drain may take, which the unit does
// not know of.
func (m *systemManager) stopping(within time.Duration) {
	m.tell(fmt.Sprintf("%s\nSTATUS=delivering what is in flight\nEXTEND_TIMEOUT_USEC=%d",
		daemon.SdNotifyStopping, (within + 15*time.Second).Microseconds()))
}

func (m *systemManager) logFile(string) string { return "" } // the journal

// watch tells the watchdog that the program lives as long as its checkpoint
// answers. A checkpoint that says what is wrong with it does answer: ending is
// then the agent's own affair.
func (m *systemManager) watch(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-m.done:
			return
		case <-tick.C:
		}
		m.mu.Lock()
		alive := m.alive
		m.mu.Unlock()
		if alive != nil {
			_ = alive()
		}
		m.tell(daemon.SdNotifyWatchdog)
	}
}

func (m *systemManager) close() {
	m.once.Do(func() { m.done = make(chan struct{}) })
	close(m.done)
	m.wg.Wait()
}
