//go:build linux

package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// build builds the program.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trailpoll")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/trailpoll/trailpoll/cmd/trailpoll").CombinedOutput()
	if err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return path
}

// tooMany is after how many failed rounds the campaign ends.
const tooMany = 5

// The campaign. Its name speaks of the first invariant, and it guards 2, 3, 5,
// 6, 7, 8, 10, 11 and 12 as well.
func TestInvariant1_Torture(t *testing.T) {
	if testing.Short() {
		t.Skip("a campaign takes a while: not with -short")
	}
	lasts, seed := 90*time.Second, rand.Uint64N(1<<32)
	if s := os.Getenv("TRAILPOLL_TORTURE"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatalf("reading TRAILPOLL_TORTURE: %v", err)
		}
	}
	if s := os.Getenv("TRAILPOLL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("reading TRAILPOLL_SEED: %v", err)
		}
	}
	now := time.Now().UTC().Truncate(time.Hour)
	if s := os.Getenv("TRAILPOLL_TORTURE_AT"); s != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, s); err != nil {
			t.Fatalf("reading TRAILPOLL_TORTURE_AT: %v", err)
		}
	}
	program := build(t)
	first := seed
	began := time.Now()
	var sum campaign
	sum.faults = newCounts()
	for time.Since(began) < lasts && len(sum.failed) < tooMany {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { sum.add(play(t, program, seed, now)) })
		if !ok {
			sum.failed = append(sum.failed, seed)
		}
		seed++
	}
	t.Logf("seeds %d to %d, %s, %v\n%s", first, seed-1, began.UTC().Format(time.DateOnly), time.Since(began).Round(time.Second), &sum)
}

// campaign is the sum of all rounds.
type campaign struct {
	rounds, kills, runs int
	faults              *counts
	web, sys, relp      verdict
	most                int
	peak                int64
	parked              int
	failed              []uint64
}

func (c *campaign) add(r result) {
	c.rounds++
	c.kills += r.kills
	c.runs += r.runs
	c.faults.merge(r.faults)
	c.web.add(r.web)
	if r.relp {
		c.relp.add(r.sys)
	} else {
		c.sys.add(r.sys)
	}
	c.most, c.peak = max(c.most, r.most), max(c.peak, r.peak)
	c.parked += r.parked
}

func (v *verdict) add(w verdict) {
	v.written += w.written
	v.received += w.received
	v.lost += w.lost + w.halves
	v.altered += w.altered
	v.repeated += w.repeated
	v.byLost += w.byLost
	v.byKill += w.byKill
	v.byDamage += w.byDamage
	v.unexcused += w.unexcused
}

// String is the table at the end.
func (c *campaign) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { _, _ = fmt.Fprintf(w, "%s\t%v\n", name, value) }
	row("rounds", c.rounds)
	row("rounds failed", fmt.Sprint(len(c.failed), " ", c.failed))
	row("runs of the agent", c.runs)
	row("kills", c.kills)
	row("faults", c.faults.all())
	for _, v := range []struct {
		name string
		verdict
	}{{"https", c.web}, {"syslog tcp", c.sys}, {"syslog relp", c.relp}} {
		row(v.name+": records written", v.written)
		row(v.name+": received", v.received)
		row(v.name+": lost", v.lost)
		row(v.name+": altered", v.altered)
		row(v.name+": repeated", v.repeated)
	}
	row("https: repeated, by lost answers", c.web.byLost)
	row("https: repeated, by kills", fmt.Sprintf("%d, at most %d after one", c.web.byKill, c.most))
	row("https: repeated, by damage of the state", c.web.byDamage)
	row("https: repeated, unaccounted for", c.web.unexcused)
	row("parked for good, and named so", c.parked)
	row("most memory", fmt.Sprintf("%d MiB", c.peak>>20))
	_ = w.Flush()
	b.WriteString("faults by kind: " + c.faults.String())
	return b.String()
}
