//go:build linux

package runtest

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell runs a script in the program's place.
func shell(t *testing.T, cfg Config, script string) *Process {
	t.Helper()
	cfg.Program, cfg.Dir, cfg.Args = "/bin/sh", t.TempDir(), []string{"-c", script}
	p, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestEnds(t *testing.T) {
	if code, late := shell(t, Config{}, "exit 3").Wait(time.Minute); code != 3 || late {
		t.Errorf("exit %d, late %t", code, late)
	}
	p := shell(t, Config{}, "exec /bin/sleep 60")
	if p.Gone() || p.Files() == 0 || p.Measure() == 0 {
		t.Errorf("gone %t, %d files, %d bytes", p.Gone(), p.Files(), p.Measure())
	}
	p.Kill()
	if p.Signal(syscall.SIGTERM) || !p.Gone() || p.Code() != -1 {
		t.Errorf("after the kill: gone %t, exit %d", p.Gone(), p.Code())
	}
	if code, late := shell(t, Config{}, "exec /bin/sleep 60").Wait(time.Millisecond); !late || code != -1 {
		t.Errorf("exit %d, late %t; want it ended by a signal", code, late)
	}
}

func TestWrong(t *testing.T) {
	for script, want := range map[string]string{
		`echo '{"level":"info"}' >&2; echo 'trailpoll: no' >&2; echo free`: "",
		`echo '{"key":"hush"}' >&2`:                                        "invariant 10",
		`echo hush`:                                                        "invariant 10",
		`echo '{"a":1' >&2`:                                                "invariant 11",
		`printf '{"a":' >&2`:                                               "", // cut by the end
		`echo "$WORD" >&2; echo >&2`:                                       "invariant 10",
	} {
		p := shell(t, Config{Secrets: []string{"hush"}, Env: []string{"WORD=hush"}}, script)
		p.Wait(time.Minute)
		if got := strings.Join(p.Wrong(), "; "); strings.Contains(got, "invariant") != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

// What comes before is done in the program's place, and if it fails the program
// does not run.
func TestBefore(t *testing.T) {
	p := shell(t, Config{Before: "echo $$"}, "echo $$")
	p.Wait(time.Minute)
	if got := strings.Fields(p.Stdout.String()); len(got) != 2 || got[0] != got[1] {
		t.Errorf("process ids: %v", got)
	}
	p = shell(t, Config{Before: "false"}, "echo runs")
	if code, _ := p.Wait(time.Minute); code != 1 || p.Stdout.Len() != 0 {
		t.Errorf("exit %d, %q", code, p.Stdout.String())
	}
	if os.Getuid() != 0 {
		t.Skip("mounts of its own are for root")
	}
	p = shell(t, Config{Mounts: true, Before: "/bin/mount -t tmpfs none /mnt; : >/mnt/mine"}, "[ -e /mnt/mine ]")
	if code, _ := p.Wait(time.Minute); code != 0 {
		t.Errorf("exit %d: %s", code, p.Log())
	}
	if _, err := os.Stat("/mnt/mine"); err == nil {
		t.Error("its mounts are everybody's")
	}
}
