//go:build linux

package torture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// group is a control group whose memory is limited: of Linux's first or second
// kind, whichever is there.
type group struct {
	dir    string
	second bool
}

// newGroup makes a group below our own. It needs root, and a file system of
// control groups that may be written to.
func newGroup(name string, limit int64) (*group, error) {
	var tried []error
	for _, g := range groupsHere(name) {
		err := g.make(limit)
		if err == nil {
			return &g, nil
		}
		g.close()
		tried = append(tried, err)
	}
	if len(tried) == 0 {
		tried = append(tried, errors.New("this system has no control groups"))
	}
	return nil, fmt.Errorf("making a control group with a limit of memory: %w", errors.Join(tried...))
}

// groupsHere are the places where a group might be made.
func groupsHere(name string) (all []group) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var root string
		second := false
		switch f[1] {
		case "memory":
			root = "/sys/fs/cgroup/memory"
		case "":
			// Beside our own group: one that has processes has no groups with limits.
			root, second, f[2] = "/sys/fs/cgroup", true, filepath.Dir(f[2])
		default:
			continue
		}
		for _, at := range []string{filepath.Join(root, f[2]), root} {
			if _, err := os.Stat(filepath.Join(at, "cgroup.procs")); err == nil {
				all = append(all, group{filepath.Join(at, name), second})
			}
		}
	}
	return all
}

func (g *group) make(limit int64) error {
	if g.second {
		_ = os.WriteFile(filepath.Join(g.dir, "..", "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return err
	}
	most, swap := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	n := strconv.FormatInt(limit, 10)
	if g.second {
		most, swap = "memory.max", "memory.swap.max"
	}
	if err := os.WriteFile(filepath.Join(g.dir, most), []byte(n), 0); err != nil {
		return err
	}
	if g.second {
		n = "0"
	}
	_ = os.WriteFile(filepath.Join(g.dir, swap), []byte(n), 0) // where there is swap at all
	return nil
}

// procs is the file that a process joins the group by.
func (g *group) procs() string { return filepath.Join(g.dir, "cgroup.procs") }

// use is what its processes took at most, bytes (0 if that can't be known), and
// how many of them were ended for it. Page cache and the state's small file
// system are part of it.
func (g *group) use() (peak int64, killed int) {
	number := func(file, name string) (n int64) {
		text, _ := os.ReadFile(filepath.Join(g.dir, file))
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 0 && (name == "" || f[0] == name && len(f) == 2) {
				n, _ = strconv.ParseInt(f[len(f)-1], 10, 64)
			}
		}
		return n
	}
	if g.second {
		return number("memory.peak", ""), int(number("memory.events", "oom_kill"))
	}
	return number("memory.max_usage_in_bytes", ""), int(number("memory.oom_control", "oom_kill"))
}

// close removes the group; its processes have ended.
func (g *group) close() { _ = os.Remove(g.dir) }

// A group's limit ends what takes more: so it would end the agent.
func TestGroup(t *testing.T) {
	g, err := newGroup(fmt.Sprintf("trailpoll-test-%d", os.Getpid()), 16<<20)
	if err != nil {
		t.Skipf("the agent is not put under a limit of memory here: %v", err)
	}
	t.Cleanup(g.close)
	var w world
	w.add("echo $$ >%s", g.procs())
	for script, want := range map[string]int{
		`exit 0`: 0,
		`x=0123456789abcdef; while :; do x=$x$x; done`: -1,
	} {
		c, err := begin("/bin/sh", filepath.Join(t.TempDir(), "none"), t.TempDir(), w, 1, "-c", script)
		if err != nil {
			t.Fatal(err)
		}
		if code, late := c.Wait(stopsWithin); code != want || late {
			t.Errorf("%s: exit %d, late %t; want %d\n%s", script, code, late, want, c.Log())
		}
	}
	if peak, killed := g.use(); peak > 16<<20 || killed != 1 {
		t.Errorf("%d bytes, killed %d; want killed once", peak, killed)
	}
}
