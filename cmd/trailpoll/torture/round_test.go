//go:build linux

package torture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// ceiling of the agent's memory in RAM, with memory = "32MiB".
	ceiling = 96 << 20
	// drainTimeout is the agent's; an orderly stop takes little longer.
	drainTimeout = 5 * time.Second
	stopsWithin  = drainTimeout + 15*time.Second
	// healsWithin is how long a run that is to end may take, with nothing wrong.
	healsWithin = 100 * time.Second
)

// result is what a round adds to the campaign's sum.
type result struct {
	drawn    *counts // faults, by kind
	faults   *counts // those that somebody met
	web, sys verdict
	relp     bool // sys is over RELP
	kills    int
	runs     int
	most     int // records repeated after one kill
	bound    int
	peak     int64
	parked   int
}

// round is one round at work.
type round struct {
	t       *testing.T
	program string
	plan    *plan
	rng     *rand.Rand
	drawn   *counts // faults
	faults  *counts // those that came about
	able    *abilities

	dir    string
	world  world  // of the agent
	names  *names // nil: addresses have no names
	group  *group // nil: its memory is not limited
	disk   *disk
	bucket *bucket
	web    *web
	sys    *sys // nil: no such output
	webIn  *journal
	sysIn  *journal
	config string

	child    *child
	runs     int
	kills    int
	peak     int64
	anon     int64 // of peak, about: what is no file
	base     held  // what a fresh agent holds
	damaged  bool  // the state was, and the agent may say so and end once
	children []*child
}

// play draws a round and plays it; now is the time that its stamps go by.
func play(t *testing.T, program string, able *abilities, seed uint64, now time.Time) result {
	began := time.Now()
	r := &round{
		t: t, program: program, plan: draw(seed, now), rng: rand.New(rand.NewPCG(seed, 1)), drawn: newCounts(), faults: newCounts(), able: able,
		dir: t.TempDir(), webIn: newJournal(), sysIn: newJournal(),
	}
	defer func() {
		t.Logf("seed %d: %.1fs; %d objects (%v); web %d × %d %s %s secure=%t, latency %v, downloads %d, syslog %t relp=%t",
			seed, time.Since(began).Seconds(), r.plan.objects, r.plan.kinds,
			r.plan.connections, r.plan.batch, r.plan.format, r.plan.compression, r.plan.secure, r.plan.latency, r.plan.downloads, r.plan.sys != nil, r.plan.relp)
		t.Logf("seed %d: the agent: %v", seed, r.plan.actions)
		t.Logf("seed %d: S3: %v; web: %v; sys: %v; DNS: %v; memory limit %d MiB", seed, r.plan.s3, r.plan.out, r.plan.sys, r.plan.dns, r.plan.limit>>20)
		t.Logf("seed %d: faults: %v; most memory %d MiB, of which %d were no file's", seed, r.faults, r.peak>>20, r.anon>>20)
		if t.Failed() {
			t.Errorf("seed %d: to see it again: TRAILPOLL_SEED=%d TRAILPOLL_TORTURE_AT=%s TRAILPOLL_TORTURE=1s", seed, seed, now.Format(time.RFC3339))
			for _, c := range r.children[max(0, len(r.children)-4):] {
				t.Logf("the last lines of run %d:\n%s", c.run, c.Last(25))
			}
			r.keep(seed)
		}
	}()
	r.set()
	r.fresh()
	r.suffer()
	r.heal()
	return r.check()
}

// must fails the round for what is no fault of the agent.
func (r *round) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// set makes the world of the round.
func (r *round) set() {
	var err error
	r.disk, err = newDisk(filepath.Join(r.dir, "state"))
	r.must(err)
	r.t.Cleanup(r.disk.close)
	weather := func(name string, phases []phase, n uint64) *weather {
		r.drawn.forecasts(name, phases)
		return &weather{seed: r.plan.seed + n<<40, phases: phases, faults: r.faults, name: name}
	}
	r.must(os.Mkdir(r.temp(), 0o700))
	if r.able.names && r.plan.dns != nil {
		r.names, err = newNames(weather("dns", r.plan.dns, 4))
		r.must(err)
		r.t.Cleanup(r.names.close)
		r.must(r.names.resolvConf(r.dir, &r.world))
	}
	if r.able.group && r.plan.limit > 0 {
		r.group, err = newGroup(fmt.Sprintf("trailpoll-torture-%d-%d", os.Getpid(), r.plan.seed), r.plan.limit)
		r.must(err)
		r.t.Cleanup(r.group.close)
		r.world.add("echo $$ >'%s'", r.group.procs())
		r.drawn.add("agent: " + memoryLimit)
	}
	// name is the server's, in a round where they have names.
	name := func(n string) string {
		if r.names == nil {
			return ""
		}
		return n
	}
	r.bucket, err = newBucket(weather("s3", r.plan.s3, 1), r.names != nil)
	r.must(err)
	r.t.Cleanup(r.bucket.close)
	if len(r.plan.poison) > 0 {
		r.drawn.add("web: " + outRefuses)
	}
	r.web, err = newWeb(r.dir, name(webName), weather("web", r.plan.out, 2), r.webIn, r.plan)
	r.must(err)
	r.t.Cleanup(r.web.close)
	outputs := r.web.output(fmt.Sprintf("connections = %d\nbatch_records = %d\ncompression = %q\nformat = %q",
		r.plan.connections, r.plan.batch, r.plan.compression, r.plan.format))
	if r.plan.sys != nil {
		r.sys, err = newSys(weather("sys", r.plan.sys, 3), r.sysIn, r.plan.relp)
		r.must(err)
		r.t.Cleanup(r.sys.close)
		outputs += r.sys.output(name(sysName))
	}
	r.config = filepath.Join(r.dir, "trailpoll.toml")
	r.must(os.WriteFile(r.config, fmt.Appendf(nil, `[agent]
state_dir = %q
memory = "32MiB"
listen = "127.0.0.1:0"
drain_timeout = %q
downloads = %d

[[source]]
name = "torture"
bucket = %q
prefix = %q
region = %q
endpoint = %q
allow_http = true
path_style = true
start = "2023-01-01"
refresh = "200ms"
idle_refresh = "400ms"
discovery = "2s"

[source.credentials]
type = "static"
access_key_id = %q
secret_access_key = "env:%s"
%s`, r.disk.dir, drainTimeout, r.plan.downloads, bucketName, r.plan.prefix, homeRegion, r.bucket.url(name(s3Name)),
		accessKey, secretInEnv, outputs), 0o600))
	r.t.Cleanup(func() {
		if r.child != nil {
			r.child.Kill()
		}
	})
}

// weathers are those of all servers.
func (r *round) weathers() []*weather {
	all := []*weather{r.bucket.weather, r.web.weather}
	if r.sys != nil {
		all = append(all, r.sys.weather)
	}
	if r.names != nil {
		all = append(all, r.names.weather)
	}
	return all
}

// temp is the agent's folder for temporary files.
func (r *round) temp() string { return filepath.Join(r.dir, "tmp") }

// begin starts the agent.
func (r *round) begin(args ...string) {
	r.runs++
	c, err := begin(r.program, r.config, r.temp(), r.world, r.runs, args...)
	r.must(err)
	r.child = c
	r.children = append(r.children, c)
}

// ended takes note of a child that is gone.
func (r *round) ended() {
	r.peak = max(r.peak, r.child.Measure())
	r.anon = max(r.anon, r.child.Anonymous())
	for _, w := range r.child.Wrong() {
		r.t.Errorf("run %d: %s", r.child.run, w)
	}
	r.read(r.child)
	r.child = nil
}

// read counts the faults that only the agent's log shows to have been met.
func (r *round) read(c *child) {
	met := map[string]bool{}
	for _, line := range c.Lines() {
		if strings.Contains(line, "connection refused") {
			met["s3: "+s3Down] = met["s3: "+s3Down] || strings.Contains(line, r.bucket.addr)
			met["web: "+outDown] = met["web: "+outDown] || strings.Contains(line, r.web.addr)
		}
		if strings.Contains(line, "no space left on device") {
			met["agent: "+diskFull] = true
		}
		if strings.Contains(line, "too many open files") {
			met["agent: "+noFiles] = true
		}
	}
	for name, yes := range met {
		if yes {
			r.faults.add(name)
		}
	}
}

// kill ends the agent by force.
func (r *round) kill() {
	r.webIn.kill(r.child.run)
	r.sysIn.kill(r.child.run)
	r.child.Kill()
	r.kills++
	r.ended()
}

// term stops the agent in order.
func (r *round) term() {
	if !r.child.Signal(syscall.SIGTERM) {
		r.alone()
		return
	}
	if code, late := r.child.Wait(stopsWithin); late || code != 0 {
		r.t.Errorf("run %d: exit %d after SIGTERM, in time: %t; want 0\n%s", r.child.run, code, !late, r.child.Last(30))
	}
	r.ended()
}

// alone is for an agent that ended though nobody told it to. It may once, after
// its state was damaged, if it says so.
func (r *round) alone() {
	code, said := r.child.Code(), r.child.Last(20)
	if r.damaged && strings.Contains(said, "checkpoint") {
		r.damaged = false
		r.faults.add("agent: ended by damage of its state")
		// What it settled since the damage is in the file that is set aside.
		r.webIn.forget(r.child.run)
		r.sysIn.forget(r.child.run)
	} else {
		r.t.Errorf("run %d: the agent ended by itself, exit %d\n%s", r.child.run, code, said)
		r.webIn.kill(r.child.run)
		r.sysIn.kill(r.child.run)
	}
	r.ended()
}

// lasts waits, and reports false if the agent ended meanwhile.
func (r *round) lasts(d time.Duration) bool {
	if pass(r.child.Ended(), d) && !r.child.Gone() {
		r.child.Measure()
		return true
	}
	r.disk.free()
	r.alone()
	return false
}

// suffer plays everything that goes wrong.
func (r *round) suffer() {
	done := make(chan struct{})
	var wg sync.WaitGroup
	began := time.Now()
	for _, w := range r.weathers() {
		w.begin(began)
	}
	for len(r.plan.writes) > 0 && r.plan.writes[0].at == 0 {
		r.write()
	}
	wg.Go(func() {
		for len(r.plan.writes) > 0 { // all of them, in any case
			pass(nil, time.Until(began.Add(r.plan.writes[0].at)))
			r.write()
		}
	})
	wg.Go(func() {
		r.bucket.weather.switches(done, func(kind string) {
			if err := r.bucket.change(kind); err != nil {
				r.t.Error(err)
			}
		})
	})
	wg.Go(func() {
		r.web.weather.switches(done, func(kind string) {
			if err := r.web.change(kind); err != nil {
				r.t.Error(err)
			}
		})
	})
	for _, a := range r.plan.actions {
		if r.child == nil {
			r.begin("run")
		}
		if r.lasts(a.wait) {
			r.act(a)
		}
	}
	close(done)
	wg.Wait()
}

// write makes the next change to the bucket.
func (r *round) write() {
	w := r.plan.writes[0]
	r.plan.writes = r.plan.writes[1:]
	if w.body == nil {
		r.bucket.store.Delete(bucketName, w.key)
	} else {
		r.bucket.store.Put(bucketName, w.key, w.body)
	}
}

// act does one thing to the agent, which is running.
func (r *round) act(a action) {
	switch a.kind {
	case diskFull, readOnly:
		if !r.disk.mounted {
			return
		}
	}
	switch a.kind {
	case lives:
	case diskFull, noFiles: // its log shows whether they are met
		r.drawn.add("agent: " + a.kind)
	default:
		r.drawn.add("agent: " + a.kind)
		r.faults.add("agent: " + a.kind)
	}
	switch a.kind {
	case kill:
		r.kill()
	case term:
		r.term()
	case termTwice:
		// The second comes before the first is done, or finds nobody.
		r.webIn.kill(r.child.run)
		r.sysIn.kill(r.child.run)
		r.child.Signal(syscall.SIGTERM)
		pass(r.child.Ended(), 100*time.Millisecond)
		r.child.Signal(syscall.SIGTERM)
		if code, late := r.child.Wait(stopsWithin); late || code > 1 {
			r.t.Errorf("run %d: exit %d after two SIGTERM, in time: %t; want 0 or 1", r.child.run, code, !late)
		}
		r.ended()
	case stop:
		from := time.Now()
		r.child.Signal(syscall.SIGSTOP)
		pass(nil, a.last)
		if a.kill {
			r.kill()
			return
		}
		r.child.Signal(syscall.SIGCONT)
		// When it wakes, a request may have timed out and been answered.
		r.webIn.lose(from.Add(-justNow), time.Now())
	case diskFull:
		if err := r.disk.fill(); err != nil {
			r.t.Error(err)
		}
		if !r.lasts(a.last) {
			return
		}
		if a.kill {
			r.kill()
		}
		r.disk.free()
	case readOnly:
		if a.kill {
			r.kill()
		} else {
			r.term()
		}
		if r.child == nil {
			r.refused()
		}
	case noFiles:
		// What is open stays open; connections that break find no file again.
		r.must(r.child.LimitFiles(uint64(r.child.Files()/2 + r.rng.IntN(3))))
		r.must(r.bucket.cut())
		if !r.lasts(a.last) {
			return
		}
		if a.kill {
			r.kill()
			return
		}
		r.must(r.child.LimitFiles(4096))
	case stateCut, stateFlipped, stateDeleted:
		run := r.child.run
		if a.kill {
			r.kill()
		} else {
			r.term()
		}
		r.must(r.disk.damage(a.kind, r.rng))
		r.damaged = true
		r.webIn.forget(run)
		r.sysIn.forget(run)
	}
}

// refused starts the agent on a state that can't be written to: it must end at
// once, and say what to do.
func (r *round) refused() {
	r.must(r.disk.writable(false))
	r.begin("run")
	code, late := r.child.Wait(stopsWithin)
	if said := string(r.child.Log()); late || code != 1 || !strings.Contains(said, "state_dir") || !strings.Contains(said, "read-only") {
		r.t.Errorf("run %d: invariant 12: a state that can't be written to: exit %d, in time: %t; want 1, and its reason\n%s",
			r.child.run, code, !late, r.child.Last(20))
	}
	r.ended()
	r.must(r.disk.writable(true))
}

// heal mends everything and has the agent finish.
func (r *round) heal() {
	for _, w := range r.weathers() {
		w.clear()
	}
	r.web.healed.Store(true)
	r.disk.free()
	if r.child != nil {
		r.worn()
	}
	if r.child != nil {
		if r.lasts(time.Duration(r.rng.Int64N(int64(time.Second)))) {
			r.term()
		}
	}
	r.finish("run", "--once", "--sweep")
	r.finish("run", "--once")
}

// finish is a run that is to end by itself, with everything delivered but what
// is parked for good.
func (r *round) finish(args ...string) {
	want := 0
	if len(r.plan.parked) > 0 {
		want = 1
	}
	for {
		r.begin(args...)
		code, late := r.child.Wait(healsWithin)
		if !late && code != want && r.damaged && strings.Contains(r.child.Last(20), "checkpoint") {
			r.alone()
			continue
		}
		if late || code != want {
			r.t.Errorf("%v: exit %d, in time: %t; want %d\n%s", args, code, !late, want, r.child.Last(40))
		}
		r.ended()
		return
	}
}
