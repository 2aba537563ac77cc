package agent_test

import (
	"slices"
	"sync/atomic"

	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// failure is a call that fails, and does nothing else.
func failure(kind fault.Kind) agenttest.Failure {
	return agenttest.Failure{Err: &fault.Error{Kind: kind, Err: errInjected}}
}

// failing is a bucket's Fail: an operation fails, "list" or "get", on that
// prefix or key; "" for each.
func failing(kind fault.Kind, op, what string) func(op, what string) agenttest.Failure {
	return func(o, w string) agenttest.Failure {
		if o == op && (what == "" || w == what) {
			return failure(kind)
		}
		return agenttest.Failure{}
	}
}

// heldWhile is an output's Fail: it is held while down is set.
func heldWhile(down *atomic.Bool) func(*record.Batch) agenttest.Failure {
	return func(*record.Batch) agenttest.Failure {
		if down.Load() {
			return failure(fault.Held)
		}
		return agenttest.Failure{}
	}
}

// refusing is an output's Fail: a batch with such a record is refused.
func refusing(bad func(*record.Record) bool) func(*record.Batch) agenttest.Failure {
	return func(b *record.Batch) agenttest.Failure {
		if slices.ContainsFunc(b.Records, func(r record.Record) bool { return bad(&r) }) {
			return failure(fault.Refused)
		}
		return agenttest.Failure{}
	}
}

// named is for refusing: the record of that name, and none while it is "".
func named(name *string) func(*record.Record) bool {
	return func(r *record.Record) bool { return agenttest.Name(r) == *name }
}
