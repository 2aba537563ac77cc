//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
)

// Over and over in the midst of a drain the agent takes another configuration.
// Nothing is lost, nothing comes twice, and the state is held all the time.
func TestE2E_Invariant1_Reload(t *testing.T) {
	const records = 40_000
	b := newBucket(t)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{Answer: func(*receivertest.Request) receivertest.Answer {
		return receivertest.Answer{Delay: 20 * time.Millisecond}
	}})
	drain(t, b, records, web)
	write := func(conf *settings, batch int) {
		conf.write(t, "", source("drain", b, "", ""), web.output(fmt.Sprintf("batch_records = %d", batch)))
	}
	conf := newSettings(t, "")
	write(conf, 100)
	c := conf.start(t, "run")
	began := func(n int) {
		t.Helper()
		await(t, 30*time.Second, fmt.Sprint("change ", n), func() bool {
			return len(c.entries("the configuration has changed: the agent stops in order and begins again with the new one")) >= n
		})
	}
	await(t, 20*time.Second, "records come", func() bool { return web.tally.Received() > 0 })
	changes := 0
	for i := range 4 {
		n := web.tally.Received()
		write(conf, 100+i)
		changes++
		if i%2 == 0 {
			c.signal(syscall.SIGHUP)
			began(changes)
		} else if out, err := reload(t, conf); err != nil {
			t.Fatalf("reload: %v\n%s", err, out)
		}
		if web.tally.Received() < records {
			await(t, 30*time.Second, "records come again", func() bool { return web.tally.Received() > n })
		}
	}

	// What is wrong is refused, and the agent works on.
	conf.write(t, `log_level = "loud"`, source("drain", b, "", ""), web.output(""))
	out, err := reload(t, conf)
	if code(err) != 2 || !strings.Contains(out, "log_level") || !strings.Contains(out, "works on with the old configuration") {
		t.Errorf("reload of a wrong configuration: %v\n%s", err, out)
	}
	c.signal(syscall.SIGHUP)
	await(t, 10*time.Second, "the second refusal", func() bool {
		return len(c.entries("the changed configuration is refused: the agent works on with the old one")) == 2
	})
	conf.write(t, "", source("drain", b, "", ""), web.output("")+"\n[output.tls]\nhere = \"twice\"\n")
	if out, err := reload(t, conf); code(err) != 2 || !strings.Contains(out, "trailpoll.toml:") {
		t.Errorf("reload of broken TOML: %v\n%s", err, out)
	}
	// state_dir can't change.
	other := &settings{dir: t.TempDir(), file: conf.file}
	other.write(t, "", source("drain", b, "", ""), web.output(""))
	c.signal(syscall.SIGHUP)
	await(t, 10*time.Second, "the state directory stays", func() bool { return strings.Contains(string(c.Log()), "state_dir can't change from") })

	write(conf, 100)
	await(t, 2*time.Minute, "all records", func() bool { return web.tally.Received() >= records })
	conf.code(t, 4, 10*time.Second, "run", "--once") // still held
	stopped(t, c)
	web.whole(t)
	if n := len(c.entries("trailpoll begins")); n != 1 {
		t.Errorf("the program began %d times, want once", n)
	}
	if out, err := reload(t, conf); code(err) != 1 || !strings.Contains(out, "no agent runs") {
		t.Errorf("reload without an agent: %v\n%s", err, out)
	}
}

// A stop in the midst of a change stops, too.
func TestE2E_Invariant1_StopWhileReloading(t *testing.T) {
	b := newBucket(t)
	hangs := make(chan struct{}, 64)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{Answer: func(*receivertest.Request) receivertest.Answer {
		hangs <- struct{}{}
		return receivertest.Answer{Delay: 3 * time.Second}
	}})
	drain(t, b, 500, web)
	conf := newSettings(t, "", source("drain", b, "", ""), web.output(""))
	c := conf.start(t, "run")
	<-hangs
	c.signal(syscall.SIGHUP)
	await(t, 10*time.Second, "the change begins", func() bool {
		return c.says("the configuration has changed: the agent stops in order and begins again with the new one")
	})
	stopped(t, c)
	web.whole(t)
}

func reload(t *testing.T, conf *settings) (string, error) {
	t.Helper()
	// No secret in the environment: it is the agent that reads the file.
	cmd := exec.CommandContext(t.Context(), program(t), "reload", "--config", conf.file)
	cmd.Env = []string{"HOME=" + conf.dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func code(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}
