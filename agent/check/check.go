// Package check tries each step of trailpoll's work from end to end, and names
// what is wrong and how to mend it. It changes nothing: not in AWS, not in the
// checkpoint, and unless it is told to not at a receiver.
//
// A step that fails keeps only those back that build on it; what keeps a step
// back is said in its place.
package check

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// State is how a step ended.
type State string

// The states of a step.
const (
	OK      State = "ok"
	Failed  State = "failed"
	Skipped State = "skipped" // nothing to try, or a step before it failed
	Warning State = "warning" // it works, and may not tomorrow
)

// Step is one thing that was tried.
type Step struct {
	Name   string `json:"name"`             // what it is about: list, get, state-dir …
	Source string `json:"source,omitempty"` // the source or
	Output string `json:"output,omitempty"` // the output that it is about
	State  State  `json:"state"`
	Tried  string `json:"tried"`            // what was done
	Answer string `json:"answer,omitempty"` // what came back
	Remedy string `json:"remedy,omitempty"` // what to do; may have several lines
}

// Plan is what there is to check.
type Plan struct {
	Config  ConfigFile
	State   StateDir
	Sources []Source
	Outputs []Output
	// SendTest sends one test record to each output.
	SendTest bool
	// StepTimeout is how long one step may take; 0 = 20 s.
	StepTimeout time.Duration
	// Now is the local clock; nil = time.Now.
	Now func() time.Time
}

// Run tries all of it, sources and outputs beside each other, and calls say
// with the steps of each in the order of the plan. It returns whether nothing
// failed.
func (p *Plan) Run(ctx context.Context, say func(Step)) bool {
	if p.StepTimeout == 0 {
		p.StepTimeout = 20 * time.Second
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	parts := []*part{}
	var work sync.WaitGroup
	begin := func(source, output string, f func(*part)) {
		x := &part{plan: p, ctx: ctx, source: source, output: output, done: make(chan struct{})}
		parts = append(parts, x)
		work.Go(func() {
			defer close(x.done)
			f(x)
		})
	}
	begin("", "", func(x *part) {
		p.Config.check(x)
		p.State.check(x)
	})
	for i := range p.Sources {
		begin(p.Sources[i].Name, "", p.Sources[i].check)
	}
	for i := range p.Outputs {
		begin("", p.Outputs[i].Name, p.Outputs[i].check)
	}
	fine := true
	for _, x := range parts {
		<-x.done
		for _, s := range x.steps {
			fine = fine && s.State != Failed
			say(s)
		}
	}
	work.Wait()
	return fine
}

// part is the steps of one source, one output, or the machine. It is used by
// one goroutine.
type part struct {
	plan           *Plan
	ctx            context.Context
	source, output string
	steps          []Step
	done           chan struct{}
}

// step gives f its time and returns what it returns.
func (x *part) step(f func(context.Context) error) error {
	return x.within(x.plan.StepTimeout, f)
}

func (x *part) within(limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(x.ctx, limit)
	defer cancel()
	err := f(ctx)
	if err != nil && x.ctx.Err() == nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &fault.Error{
			Kind: fault.Unreachable, Err: fmt.Errorf("no answer in %v: %w", limit, err),
			Hint: orElse(fault.HintOf(err), "see whether a firewall or a proxy drops the connection"),
		}
	}
	return err
}

func (x *part) add(name string, state State, tried, answer, remedy string) {
	x.steps = append(x.steps, Step{
		Name: name, Source: x.source, Output: x.output, State: state,
		Tried: tame(tried), Answer: tame(answer), Remedy: tame(remedy),
	})
}

// tame leaves nothing in a text that a terminal takes for an order: keys and
// answers come from whoever writes to the bucket. Lines stay lines.
func tame(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}

func (x *part) ok(name, tried, answer string) { x.add(name, OK, tried, answer, "") }

func (x *part) warn(name, tried, answer, remedy string) { x.add(name, Warning, tried, answer, remedy) }

func (x *part) skip(name, tried, why string) { x.add(name, Skipped, tried, why, "") }

// fail notes an error; with an empty remedy, that of the error.
func (x *part) fail(name, tried string, err error, remedy string) {
	x.add(name, Failed, tried, err.Error(), orElse(remedy, fault.HintOf(err)))
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}
