//go:build linux

package torture

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/runtest"
)

// build builds the program.
func build(t *testing.T) string {
	t.Helper()
	path, err := runtest.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
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
	able := look(t)
	first := seed
	began := time.Now()
	var sum campaign
	sum.drawn, sum.faults = newCounts(), newCounts()
	for time.Since(began) < lasts && len(sum.failed) < tooMany {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { sum.add(play(t, program, able, seed, now)) })
		if !ok {
			sum.failed = append(sum.failed, seed)
		}
		seed++
	}
	t.Logf("seeds %d to %d, %s, %v\n%s", first, seed-1, began.UTC().Format(time.DateOnly), time.Since(began).Round(time.Second), &sum)
	if sum.rounds < long {
		return
	}
	for _, kind := range able.kinds() {
		if sum.faults.of[kind] == 0 {
			t.Errorf("%s: drawn %d times in %d rounds, and never met", kind, sum.drawn.of[kind], sum.rounds)
		}
	}
}

// long is a campaign of so many rounds that each kind of fault must be met.
const long = 80

// abilities are what can be done to an agent here.
type abilities struct {
	disk, names, group bool
}

// look finds out what can be done, and says what can't and why.
func look(t *testing.T) *abilities {
	t.Helper()
	var a abilities
	d, err := newDisk(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	if a.disk = d.mounted; !a.disk {
		t.Log("the disk is never full, and never read-only: mounting a file system is for root")
	}
	d.close()
	group, err := newGroup(fmt.Sprintf("trailpoll-torture-%d", os.Getpid()), 96<<20)
	if a.group = err == nil; a.group {
		group.close()
	} else {
		t.Logf("the agent's memory is not limited: %v", err)
	}
	a.names = a.resolves(t)
	return &a
}

// resolves reports whether a process can be given a DNS server of its own.
func (*abilities) resolves(t *testing.T) bool {
	t.Helper()
	n, err := newNames(&weather{faults: newCounts()})
	if err != nil {
		t.Logf("DNS does not fail: %v", err)
		return false
	}
	defer n.close()
	var w world
	dir := t.TempDir()
	if err := n.resolvConf(dir, &w); err != nil {
		t.Fatal(err)
	}
	w.add("[ \"$(/bin/cat /etc/resolv.conf)\" = \"$(/bin/cat '%s')\" ]", filepath.Join(dir, "resolv.conf"))
	c, err := begin("/bin/true", filepath.Join(dir, "none"), dir, w, 0)
	if err == nil {
		if code, _ := c.Wait(stopsWithin); code != 0 {
			err = fmt.Errorf("exit %d: %s", code, c.Log())
		}
	}
	if err != nil {
		t.Logf("DNS does not fail: mounting a file over /etc/resolv.conf: %v", err)
	}
	return err == nil
}

// kinds are the faults that a long campaign meets, by the names that they are
// counted by.
func (a *abilities) kinds() (all []string) {
	add := func(name string, kinds ...string) {
		for _, k := range kinds {
			if k != lives {
				all = append(all, name+": "+k)
			}
		}
	}
	add("s3", s3Kinds...)
	add("s3", s3Vanished, s3Ahead, s3Behind, s3DaysOn, s3DaysBack)
	add("web", outKinds...)
	add("web", outVanished, outRefuses)
	add("sys", sysBreaks)
	add("agent", kill, term, termTwice, stop, noFiles, stateCut, stateFlipped, stateDeleted)
	if a.disk {
		add("agent", diskFull, readOnly)
	}
	if a.group {
		add("agent", memoryLimit)
	}
	if a.names {
		add("dns", dnsKinds...)
	}
	return all
}

// campaign is the sum of all rounds.
type campaign struct {
	rounds, kills, runs int
	drawn, faults       *counts
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
	c.drawn.merge(r.drawn)
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
	row("faults met", c.faults.all())
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
	row("", "")
	row("fault", "drawn\tmet")
	names := slices.Collect(maps.Keys(c.drawn.of))
	names = slices.AppendSeq(names, maps.Keys(c.faults.of))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		row(name, fmt.Sprintf("%d\t%d", c.drawn.of[name], c.faults.of[name]))
	}
	_ = w.Flush()
	return b.String()
}
