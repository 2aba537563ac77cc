package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
)

// serviceName is what the service control manager and the event log know the
// service by.
const serviceName = "trailpoll"

// The events that are written to the event log. EventCreate.exe, which holds
// the text of our messages, knows the ids from 1 to 1000.
const (
	eventStarted = 1
	eventStopped = 2
	eventFailed  = 3
	eventConfig  = 4
)

// manage runs the agent under the service control manager, if that started it.
// Whether it did is asked of the manager itself: what svc.IsWindowsService
// guesses from the parent process is wrong in some environments.
func manage(r *runner) error {
	m := &scm{r: r, began: make(chan struct{}, 1), draining: make(chan time.Duration, 2)}
	err := svc.Run(serviceName, m)
	if errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) {
		r.manager = nobody{}
		return r.run()
	}
	if err != nil {
		return failed(fmt.Errorf("speaking with the service control manager: %w", err))
	}
	return m.err
}

// scm is the service control manager of Windows.
type scm struct {
	r        *runner
	began    chan struct{}
	draining chan time.Duration
	err      error // what the run ended with, once Execute has returned
}

func (m *scm) ready(*config.Config, func() error) {
	select {
	case m.began <- struct{}{}:
	default:
	}
}

func (m *scm) reloading() {}

func (m *scm) stopping(within time.Duration) {
	select {
	case m.draining <- within:
	default:
	}
}

// logFile puts the log beside the state: a service has no standard error. What
// Go says when it crashes goes there, too.
func (m *scm) logFile(stateDir string) string {
	if f, err := os.OpenFile(filepath.Join(stateDir, "trailpoll-crash.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		_ = debug.SetCrashOutput(f, debug.CrashOptions{})
		_ = f.Close()
	}
	return filepath.Join(stateDir, "trailpoll.log")
}

// pending is how often the manager hears that a start or stop is still under
// way, and hint how long it is to wait for the next word of it.
const (
	pending = time.Second
	hint    = 20 * time.Second
)

// Execute does what svc.Handler asks for: it runs the agent and tells the
// manager how it stands, until the agent has ended.
func (m *scm) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (bool, uint32) {
	status := svc.Status{State: svc.StartPending, WaitHint: uint32(hint / time.Millisecond)}
	changes <- status
	tell := func(s svc.State) {
		status = svc.Status{State: s, WaitHint: uint32(hint / time.Millisecond)}
		if s == svc.Running {
			status = svc.Status{State: s, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown | svc.AcceptParamChange}
		}
		changes <- status
	}
	m.r.manager = m
	ended := make(chan error, 1)
	go func() { ended <- m.r.run() }()
	tick := time.NewTicker(pending)
	defer tick.Stop()
	for {
		select {
		case m.err = <-ended:
			return m.end()
		case <-m.began:
			if status.State == svc.StartPending {
				tell(svc.Running)
				m.say(func(l *eventlog.Log) error {
					return l.Info(eventStarted, "trailpoll "+thisBuild().Version+" has started")
				})
			}
		case <-m.draining: // by whomever it was ordered
			if status.State != svc.StopPending {
				tell(svc.StopPending)
			}
		case <-tick.C:
			if status.State == svc.StartPending || status.State == svc.StopPending {
				status.CheckPoint++
				changes <- status
			}
		case q := <-requests:
			switch q.Cmd {
			case svc.Interrogate:
				changes <- status
			case svc.ParamChange:
				m.r.orders.orderReload()
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				// First the manager, then the drain: it waits for who says that
				// he is stopping.
				if status.State != svc.StopPending {
					tell(svc.StopPending)
				}
				m.r.orders.orderStop(order(q.Cmd))
			}
		}
	}
}

func order(c svc.Cmd) string {
	if c == svc.Stop {
		return "service stop"
	}
	return "system shutdown"
}

// end writes to the event log what the run ended with, and returns what the
// manager is told. An error makes it start the service again, as the recovery
// actions say; a wrong configuration is no such error, since it would be wrong
// each time.
func (m *scm) end() (specific bool, code uint32) {
	if m.err == nil {
		m.say(func(l *eventlog.Log) error { return l.Info(eventStopped, "trailpoll has stopped") })
		return false, 0
	}
	code = exitUsage
	if e, ok := errors.AsType[*exitError](m.err); ok {
		code = uint32(e.code)
	}
	text := m.err.Error()
	if hint := fault.HintOf(m.err); hint != "" {
		text += "\r\n" + hint
	}
	if code == exitUsage {
		m.say(func(l *eventlog.Log) error {
			return l.Error(eventConfig, "trailpoll does not start, and will not be started again by itself: the configuration is wrong.\r\n"+text)
		})
		return false, 0
	}
	m.say(func(l *eventlog.Log) error { return l.Error(eventFailed, "trailpoll ended with an error: "+text) })
	return true, code
}

// say writes to the event log. Where that can't be done there is nobody to
// tell.
func (m *scm) say(f func(*eventlog.Log) error) {
	l, err := eventlog.Open(serviceName)
	if err != nil {
		return
	}
	defer func() { _ = l.Close() }()
	_ = f(l)
}
