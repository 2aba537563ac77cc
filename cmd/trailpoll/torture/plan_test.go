//go:build linux

package torture

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// What happens to the agent.
const (
	kill         = "kill -9"
	term         = "SIGTERM"
	termTwice    = "SIGTERM twice"
	stop         = "SIGSTOP"
	diskFull     = "disk full"
	noFiles      = "no file descriptors"
	stateCut     = "state cut short"
	stateFlipped = "state flipped"
	stateDeleted = "state deleted"
	readOnly     = "state read-only" // drawn apart
	lives        = "lives on"        // no fault
	memoryLimit  = "memory limit"    // of all the agent's runs of a round
)

// Some are drawn more often than others.
var actions = []string{
	kill, kill, kill, kill, kill, kill, term, term, term, termTwice, stop, stop, diskFull, diskFull, noFiles, noFiles,
}

// action is one thing that happens to the agent.
type action struct {
	kind string
	wait time.Duration // before it
	last time.Duration // how long it lasts, if it lasts
	kill bool          // it ends with a kill
}

func (a action) String() string {
	s := fmt.Sprintf("+%.1fs %s", a.wait.Seconds(), a.kind)
	if a.last > 0 {
		s += fmt.Sprintf(" %.1fs", a.last.Seconds())
	}
	if a.kill {
		s += " and kill"
	}
	return s
}

// write is one change to the bucket.
type write struct {
	at   time.Duration
	key  string
	body []byte // nil: the object is deleted
}

// plan is all that is drawn for a round.
type plan struct {
	seed    uint64
	s3, out []phase
	sys     []phase // nil: there is no syslog output
	relp    bool    // of the syslog output
	dns     []phase // nil: the servers are named by their addresses
	limit   int64   // of the agent's memory, page cache included; 0 = none
	lives   bool    // the agent is not ended before all is healed
	actions []action
	writes  []write

	secure              bool
	connections, batch  int
	downloads           int
	latency             time.Duration // of the receiver, at most
	compression, format string
	prefix              string

	web, tcp      *expectations
	parked        map[spot]string // with what reason; for good
	poison        map[digest]bool
	poisonForGood bool
	objects       int
	kinds         *counts // of objects
}

// rough is about how long the faults of a round last.
const rough = 9 * time.Second

// draw draws a round that is played at a time: stamps are some days before it.
func draw(seed uint64, now time.Time) *plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := &plan{
		seed: seed, web: newExpectations(), tcp: newExpectations(),
		parked: map[spot]string{}, poison: map[digest]bool{}, kinds: newCounts(),
		s3: forecast(rng, s3Kinds, rough), out: forecast(rng, outKinds, rough),
		secure: rng.IntN(10) < 7, connections: 1 + rng.IntN(4), batch: []int{10, 50, 100, 300}[rng.IntN(4)],
		downloads:   []int{0, 1, 4, 16}[rng.IntN(4)],
		latency:     []time.Duration{0, 20, 100, 300}[rng.IntN(4)] * time.Millisecond,
		compression: []string{"gzip", "none"}[rng.IntN(2)], format: []string{"ndjson", "json-array"}[rng.IntN(2)],
	}
	// Each kind has its turn, and not by chance alone.
	turn := func(phases []phase, kinds []string) {
		if len(phases) > 0 {
			phases[0].kind = kinds[seed%uint64(len(kinds))]
		}
	}
	turn(p.s3, s3Kinds)
	turn(p.out, outKinds)
	if rng.IntN(4) == 0 { // a round in which only the agent suffers
		p.s3, p.out = nil, nil
	}
	if rng.IntN(3) == 0 {
		p.sys = []phase{}
		if rng.IntN(2) == 0 {
			p.sys = forecast(rng, []string{sysBreaks}, rough)
		}
	}
	for at := time.Duration(0); at < rough; {
		a := action{kind: actions[rng.IntN(len(actions))], wait: 100*time.Millisecond + time.Duration(rng.Int64N(int64(1800*time.Millisecond)))}
		switch a.kind {
		case stop, diskFull, noFiles:
			a.last = 300*time.Millisecond + time.Duration(rng.Int64N(int64(2500*time.Millisecond)))
			a.kill = rng.IntN(4) == 0
		}
		at += a.wait + a.last
		p.actions = append(p.actions, a)
	}
	if rng.IntN(3) == 0 { // once at most: it excuses all repeats before
		i := rng.IntN(len(p.actions))
		p.actions[i].kind = []string{stateCut, stateFlipped, stateDeleted}[rng.IntN(3)]
		p.actions[i].last, p.actions[i].kill = 0, rng.IntN(2) == 0
	}
	p.workload(rng, now)
	p.apart(rand.New(rand.NewPCG(seed, 4)))
	p.system(rand.New(rand.NewPCG(seed, 5)))
	return p
}

// apart draws from a source of its own what takes long beside the rest of a
// round: so it comes once in some of them.
func (p *plan) apart(rng *rand.Rand) {
	add := func(to *[]phase, kind string, least time.Duration) {
		if *to == nil { // nothing is to go wrong there
			return
		}
		from := time.Duration(rng.Int64N(int64(rough / 2)))
		*to = append(*to, phase{from: from, to: from + least + time.Duration(rng.Int64N(int64(rough/2))), kind: kind, chance: 1})
		slices.SortStableFunc(*to, func(x, y phase) int { return int(x.from - y.from) })
	}
	if rng.IntN(4) == 0 {
		add(&p.out, outVanished, time.Second)
	}
	switch rng.IntN(8) {
	case 0:
		add(&p.s3, s3Vanished, time.Second)
	case 1, 2, 3, 4:
		all := slices.Sorted(maps.Keys(steps))
		add(&p.s3, all[p.seed%uint64(len(all))], time.Second)
	}
	if rng.IntN(4) == 0 {
		i := rng.IntN(len(p.actions))
		switch p.actions[i].kind {
		case stateCut, stateFlipped, stateDeleted:
		default:
			p.actions[i].kind, p.actions[i].last, p.actions[i].kill = readOnly, 0, rng.IntN(2) == 0
		}
	}
	p.relp = p.sys != nil && rng.IntN(2) == 0
}

// system draws what the agent's system does to it, and whether it lives through
// all of the round.
func (p *plan) system(rng *rand.Rand) {
	if rng.IntN(3) == 0 {
		p.limit = []int64{64 << 20, 96 << 20}[rng.IntN(2)]
	}
	if rng.IntN(3) == 0 {
		p.dns = forecast(rng, dnsKinds, rough)
	}
	if p.lives = rng.IntN(4) == 0; !p.lives {
		return
	}
	for i := range p.actions {
		a := &p.actions[i]
		a.kill = false
		switch a.kind {
		case stop, diskFull, noFiles:
		default:
			a.kind = lives
		}
	}
}

// workload draws the objects and when each is written.
func (p *plan) workload(rng *rand.Rand, now time.Time) {
	c := corpus.New(p.seed)
	layout := corpus.Layouts()[rng.IntN(len(corpus.Layouts()))]
	p.prefix = layout.Prefix
	traffic := corpus.Traffic{
		Layout: layout, Accounts: 1 + rng.IntN(3), Regions: corpus.Regions()[:1+rng.IntN(3)],
		From: now.Add(-time.Duration(1+rng.IntN(48)) * time.Hour), Slots: 3 + rng.IntN(6), FilesPerSlot: 1 + rng.IntN(3),
		Records: []int{0, 5, 40, 300, 300}[rng.IntN(5)], OneTrail: rng.IntN(2) == 0, Clutter: rng.IntN(2) == 0,
	}
	if rng.IntN(2) == 0 { // of the last hour: what comes first
		traffic.From = now.Add(-time.Duration(rng.IntN(60)) * time.Minute)
	}
	anytime := func() time.Duration {
		if rng.IntN(3) == 0 {
			return 0
		}
		return time.Duration(rng.Int64N(int64(rough)))
	}
	put := func(o *corpus.Object, at time.Duration) {
		p.writes = append(p.writes, write{at, o.Key, o.Body})
		p.objects++
	}
	// must notes the records of an object that must come.
	must := func(o *corpus.Object) {
		for i := range o.Records {
			d := digestOf(o.Records[i].Raw)
			p.web.must[d]++
			p.tcp.must[d]++
			p.web.where[d] = fmt.Sprintf("%s#%d", o.Key, o.Records[i].Index)
			p.tcp.where[d] = p.web.where[d]
		}
	}
	may := func(o *corpus.Object) {
		for _, d := range digests(o) {
			p.web.may[d]++
			p.tcp.may[d]++
		}
	}
	var poisonable []corpus.Object
	for o := range c.Objects(traffic) {
		if o.Kind != corpus.Log {
			put(&o, anytime())
			p.kinds.add(o.Kind.String())
			continue
		}
		at := anytime()
		put(&o, at)
		switch rng.IntN(24) {
		case 0: // the same content under another key
			must(&o)
			must(&o)
			o.Key = renamed(o.Key, rng)
			put(&o, anytime())
			p.kinds.add("duplicate")
		case 1, 2: // deleted, before it is found or after
			may(&o)
			p.writes = append(p.writes, write{at: at + time.Duration(rng.Int64N(int64(2*time.Second))), key: o.Key})
			p.kinds.add("deleted")
		case 3, 4: // written over, before it is settled or after
			first := digests(&o)
			other := another(p.seed+1+uint64(len(p.writes))<<32, 1+rng.IntN(2*len(o.Records)+1))
			other.Key = o.Key
			second := digests(&other)
			p.writes = append(p.writes, write{at + time.Duration(rng.Int64N(int64(2*time.Second))), o.Key, other.Body})
			for _, e := range []*expectations{p.web, p.tcp} {
				e.overwrite(o.Key, first, second)
			}
			p.kinds.add("overwritten")
		default:
			must(&o)
			poisonable = append(poisonable, o)
			p.kinds.add("log")
		}
	}
	// Late ones: long before the others by their names, and in the midst of the
	// round by their arrival.
	late := traffic
	late.From, late.Slots, late.Clutter, late.FilesPerSlot = now.Add(-time.Duration(3+rng.IntN(17))*24*time.Hour), 1+rng.IntN(3), false, 1
	for o := range c.Objects(late) {
		must(&o)
		put(&o, rough/4+time.Duration(rng.Int64N(int64(rough*3/4))))
		p.kinds.add("late")
	}
	if rng.IntN(3) == 0 {
		p.bad(c, layout, rng, now, put, must, anytime)
	}
	p.drawPoison(poisonable, rng)
	slices.SortStableFunc(p.writes, func(x, y write) int { return int(x.at - y.at) })
}

// bad adds objects that are bad for good.
func (p *plan) bad(c *corpus.Corpus, l corpus.Layout, rng *rand.Rand, now time.Time,
	put func(*corpus.Object, time.Duration), must func(*corpus.Object), anytime func() time.Duration) {
	all := c.Bad(l, now.Add(-72*time.Hour))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, b := range all[:1+rng.IntN(5)] {
		put(&b.Object, anytime())
		must(&b.Object)
		at := spot{"web", position(&b.Object), progress.WholeObject}
		if b.RecordOnly {
			at.record = b.Record
		}
		p.parked[at] = string(b.Reason)
		at.output = "sys"
		if p.sys != nil {
			p.parked[at] = string(b.Reason)
		}
		p.kinds.add("bad")
	}
}

// drawPoison draws records that the receiver refuses, for good or until all is healed.
func (p *plan) drawPoison(from []corpus.Object, rng *rand.Rand) {
	if len(from) == 0 || rng.IntN(2) != 0 {
		return
	}
	p.poisonForGood = rng.IntN(2) == 0
	for range 1 + rng.IntN(3) {
		o := &from[rng.IntN(len(from))]
		i := rng.IntN(len(o.Records))
		d := digestOf(o.Records[i].Raw)
		if p.poison[d] || p.web.must[d] != 1 {
			continue
		}
		p.poison[d] = true
		if p.poisonForGood {
			delete(p.web.must, d)
			p.parked[spot{"web", position(o), o.Records[i].Index}] = "refused"
		}
	}
}

// digests are those of an object's records.
func digests(o *corpus.Object) (all []digest) {
	for i := range o.Records {
		all = append(all, digestOf(o.Records[i].Raw))
	}
	return all
}

// position is an object's place in its stream.
func position(o *corpus.Object) string {
	_, at, _ := strings.Cut(o.Key, "/"+o.LogType+"/"+o.Region+"/")
	return at
}

// renamed is a key like another, with another unique part.
func renamed(key string, rng *rand.Rand) string {
	const end = ".json.gz"
	b := []byte(strings.TrimSuffix(key, end))
	for i := len(b) - 16; i < len(b); i++ {
		b[i] = byte('A' + rng.IntN(26))
	}
	return string(b) + end
}

// another is an object of so many records that are nowhere else.
func another(seed uint64, records int) corpus.Object {
	for o := range corpus.New(seed).Uniform(1, records) {
		return o
	}
	panic("the corpus made nothing")
}
