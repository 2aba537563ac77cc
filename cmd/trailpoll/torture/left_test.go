//go:build linux

package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

// held is what a running agent holds on to.
type held struct {
	goroutines, files int
	deleted           []string // files that are open and have no name any more
}

// address is where the child serves its metrics; "" if it does not say.
func (c *child) address() string {
	for _, line := range c.Lines() {
		var l struct{ Message, Address string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Message == "status, metrics and health are served" {
			return l.Address
		}
	}
	return ""
}

// holds asks the child's metrics.
func (c *child) holds() (h held, err error) {
	addr := c.address()
	if addr == "" {
		return h, errors.New("it does not say where its metrics are")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return h, err
	}
	q.Close = true
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return h, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return h, err
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "go_goroutines %d", &h.goroutines)
	}
	if h.goroutines == 0 {
		return h, errors.New("its metrics have no go_goroutines")
	}
	dir := fmt.Sprintf("/proc/%d/fd", c.Pid())
	all, err := os.ReadDir(dir)
	for _, e := range all {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasSuffix(to, " (deleted)") {
			h.deleted = append(h.deleted, to)
		}
	}
	h.files = len(all)
	return h, err
}

// watch asks the running agent what it holds until that is enough, and reports
// false if it never was.
func (r *round) watch(most time.Duration, enough func(held) bool) (h held, ok bool) {
	end := time.NewTimer(most)
	defer end.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	idle := time.NewTicker(2 * time.Second)
	defer idle.Stop()
	for {
		now, err := r.child.holds()
		if err == nil {
			if h = now; enough(h) {
				return h, true
			}
		}
		select {
		case <-look.C:
		case <-idle.C: // connections to S3 are kept for a while
			r.must(r.bucket.cut())
		case <-r.child.Ended():
			return h, false
		case <-end.C:
			return h, false
		}
	}
}

// fresh runs the agent before anything is wrong or to be had, and notes what
// such an agent holds.
func (r *round) fresh() {
	r.begin("run")
	lists := r.bucket.store.Count(s3test.ListObjectsV2)
	var ok bool
	r.base, ok = r.watch(stopsWithin, func(held) bool { return r.bucket.store.Count(s3test.ListObjectsV2) > lists+1 })
	if !ok {
		r.t.Fatalf("the agent does not come up\n%s", r.child.Last(20))
	}
	r.term()
}

// worn holds what an agent holds that went through faults, now that all is
// healed, against what a fresh one holds: no goroutine and no file is left
// behind. What it keeps connections for is let go first, or allowed for.
func (r *round) worn() {
	r.must(r.bucket.cut())
	conns := r.plan.connections + 2 // and to S3, and ours
	if r.sys != nil {
		conns += 2
	}
	allowed := held{goroutines: r.base.goroutines + 2*conns, files: r.base.files + conns}
	h, ok := r.watch(settlesWithin, func(h held) bool {
		return h.goroutines <= allowed.goroutines && h.files <= allowed.files && len(h.deleted) == 0
	})
	if r.child.Gone() {
		r.alone()
		return
	}
	r.t.Logf("run %d holds %d goroutines and %d files; a fresh agent %d and %d", r.child.run, h.goroutines, h.files, r.base.goroutines, r.base.files)
	if ok {
		return
	}
	r.t.Errorf("run %d: left behind: %d goroutines, %d files, deleted ones %v; at most %d and %d may be",
		r.child.run, h.goroutines, h.files, h.deleted, allowed.goroutines, allowed.files)
	r.webIn.kill(r.child.run)
	r.sysIn.kill(r.child.run)
	r.child.Signal(syscall.SIGQUIT)
	r.child.Wait(stopsWithin)
	r.t.Logf("where they are:\n%s", r.child.Log())
	r.child = nil
}

// settlesWithin is how long an agent may take to let go of what it needed for
// faults that are over.
const settlesWithin = 20 * time.Second

// leftovers are files outside of the state that nobody should have made, or
// should have removed.
func (r *round) leftovers() (all []string) {
	for _, dir := range []string{r.dir, r.temp()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			all = append(all, err.Error())
		}
		for _, e := range entries {
			switch e.Name() {
			case "state", "tmp", "trailpoll.toml", "ca.pem", "resolv.conf":
			default:
				all = append(all, filepath.Join(dir, e.Name()))
			}
		}
	}
	return all
}
