package main

import (
	"time"

	"github.com/trailpoll/trailpoll/agent/config"
)

// manager is the service manager that started the program. It is called by one
// goroutine at a time.
type manager interface {
	// ready says that the agent works with conf. alive, unless it is nil, is
	// asked from now on whether it still does.
	ready(conf *config.Config, alive func() error)
	// reloading says that a changed configuration is being looked at; ready
	// follows.
	reloading()
	// stopping says that the agent stops, which takes so long at most.
	stopping(within time.Duration)
	// logFile returns where the log goes if the configuration names no file;
	// "" = standard error.
	logFile(stateDir string) string
}

// nobody is the manager of a program that somebody started by hand.
type nobody struct{}

func (nobody) ready(*config.Config, func() error) {}
func (nobody) reloading()                         {}
func (nobody) stopping(time.Duration)             {}
func (nobody) logFile(string) string              { return "" }
