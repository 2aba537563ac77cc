//go:build linux

package torture

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// check holds what arrived against what was written.
func (r *round) check() result {
	res := result{
		drawn: r.drawn, faults: r.faults, kills: r.kills, runs: r.runs, peak: r.peak,
		bound: 2 * r.plan.connections * r.plan.batch, parked: len(r.plan.parked), relp: r.plan.relp,
	}
	res.web = r.webIn.judge(r.plan.web)
	res.most = res.web.most
	r.hold("web", res.web)
	if res.web.unexcused > 0 {
		r.t.Errorf("invariant 2: web: %d records repeated that nothing accounts for", res.web.unexcused)
	}
	if res.most > res.bound {
		r.t.Errorf("invariant 2: web: kill of run %d: %d records repeated, at most %d may be", res.web.worst, res.most, res.bound)
	}
	if r.sys != nil {
		pass(nil, 100*time.Millisecond) // what the last run sent is read
		res.sys = r.sysIn.judge(r.plan.tcp)
		res.sys.unexcused = 0 // nobody can tell which messages were confirmed
		r.hold("sys", res.sys)
		for _, err := range r.sys.problems() {
			r.t.Errorf("sys: %v", err)
		}
	}
	if r.peak > ceiling {
		r.t.Errorf("invariant 8: the agent took %d MiB of memory, at most %d may be", r.peak>>20, ceiling>>20)
	}
	got, err := r.disk.parked()
	r.must(err)
	for at, reason := range r.plan.parked {
		if got[at] != reason {
			r.t.Errorf("%+v is parked as %q, want %q", at, got[at], reason)
		}
		delete(got, at)
	}
	for at, reason := range got {
		r.t.Errorf("%+v is parked as %q, and nothing is wrong with it", at, reason)
	}
	for _, name := range append(r.disk.leftovers(), r.leftovers()...) {
		r.t.Errorf("left behind: %s", name)
	}
	if r.group != nil {
		peak, killed := r.group.use()
		r.t.Logf("memory limit of %d MiB: %d MiB at most, page cache and state included", r.plan.limit>>20, peak>>20)
		r.faults.add("agent: " + memoryLimit)
		if killed > 0 {
			r.t.Errorf("invariant 8: the system ended the agent %d times for taking more than %d MiB of memory", killed, r.plan.limit>>20)
		}
	}
	return res
}

func (r *round) hold(name string, v verdict) {
	r.t.Logf("%s: %v", name, &v)
	for _, m := range v.missing {
		r.t.Logf("%s: missing: %s", name, m)
	}
	for _, m := range v.strange {
		r.t.Logf("%s: nobody wrote: %s", name, m)
	}
	if v.lost > 0 || v.halves > 0 {
		r.t.Errorf("invariant 1: %s: %d records of %d lost, of %d objects no content came whole", name, v.lost, v.written, v.halves)
	}
	if v.altered > 0 {
		r.t.Errorf("invariant 7: %s: %d records came that nobody wrote", name, v.altered)
	}
}

// keep writes the logs of all runs to the directory that TRAILPOLL_TORTURE_LOGS
// names, if it does.
func (r *round) keep(seed uint64) {
	dir := os.Getenv("TRAILPOLL_TORTURE_LOGS")
	if dir == "" {
		return
	}
	for _, c := range r.children {
		name := filepath.Join(dir, fmt.Sprintf("%d-%02d.log", seed, c.run))
		if err := os.WriteFile(name, c.Log(), 0o600); err != nil {
			r.t.Error(err)
		}
	}
}
