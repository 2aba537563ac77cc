package corpus

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"time"
)

// slot is the grid of stamps: minutes in CloudTrail's names are multiples of 5.
const slot = 5 * time.Minute

// Traffic says what ordinary traffic to make. The zero value is an hour of
// three accounts in three regions under the plain layout, as busy as real
// accounts are.
type Traffic struct {
	Layout   Layout
	Accounts int       // how many; 0 = 3
	Regions  []string  // nil = Regions()
	LogTypes []string  // nil = CloudTrail everywhere, the three others now and then
	From     time.Time // the first stamp, rounded down to five minutes; zero = Epoch
	Slots    int       // how many times five minutes; 0 = 12

	// FilesPerSlot is how many objects each stream gets every five minutes;
	// 0 = one to twelve, as in real buckets.
	FilesPerSlot int
	// Records is how many records each object has; 0 = as in real buckets:
	// around 5 in quiet streams, around 20 in busy ones, seldom 400 to 1,700.
	Records int
	// OneTrail leaves out what two trails into one bucket cause: that a quarter
	// of all events come twice, in two objects.
	OneTrail bool
	// Clutter puts digest files, folder markers and foreign objects in between.
	Clutter bool
}

// Objects returns the traffic's objects, slot by slot. Their keys are all
// different; they neither ascend nor stand in the order of AppearsAt.
func (c *Corpus) Objects(t Traffic) iter.Seq[Object] {
	if t.Accounts == 0 {
		t.Accounts = 3
	}
	if t.Regions == nil {
		t.Regions = Regions()
	}
	if t.From.IsZero() {
		t.From = Epoch
	}
	if t.Slots == 0 {
		t.Slots = 12
	}
	from := t.From.UTC().Truncate(slot)
	return func(yield func(Object) bool) {
		var p packer
		for n := range t.Slots {
			stamp := from.Add(time.Duration(n) * slot)
			for a := range t.Accounts {
				for i, region := range t.Regions {
					if t.Clutter && n == 0 && !folders(t.Layout, Account(a), region, a+i == 0, i == 0, stamp, yield) {
						return
					}
					if !c.slot(t, &p, Account(a), region, stamp, a+i, yield) {
						return
					}
				}
			}
		}
	}
}

// slot yields what one account and region deliver in five minutes.
func (c *Corpus) slot(t Traffic, p *packer, account, region string, stamp time.Time, nth int, yield func(Object) bool) bool {
	g := c.gen(fmt.Sprintf("traffic %s %s %s %t", t.Layout.Name, account, region, t.OneTrail), int(stamp.Unix()))
	g.account, g.region = account, region
	logTypes := t.LogTypes
	if logTypes == nil {
		logTypes = []string{CloudTrail}
		if others := LogTypes()[1:]; g.chance(0.1) {
			logTypes = append(logTypes, others[g.IntN(len(others))])
		}
	}
	if t.Clutter && !c.clutter(g, t.Layout, p, stamp, yield) {
		return false
	}
	for _, g.logType = range logTypes {
		files := t.FilesPerSlot
		if files == 0 {
			files = g.filesPerSlot()
		}
		for range files {
			n := t.Records
			if n == 0 {
				n = g.recordsPerFile(nth%2 == 0)
			}
			o := g.object(t.Layout, stamp)
			f := begin()
			f.fill(g, n, stamp)
			var raw []byte
			raw, o.Records = f.end()
			o.Body = p.gz(raw)
			if !yield(o) {
				return false
			}
			if !t.OneTrail && g.chance(0.27) && !yield(g.twin(t.Layout, &o)) {
				return false
			}
		}
	}
	return true
}

// twin is the object that a second trail writes of the same events: equal
// content under another name, mostly with the same stamp or the next one.
func (g *gen) twin(l Layout, o *Object) Object {
	later := time.Duration(0)
	switch p := g.Float64(); {
	case p < 0.001:
		later = 2 * slot
	case p < 0.49:
		later = slot
	}
	t := g.object(l, o.Stamp.Add(later))
	t.Body, t.Records = slices.Clone(o.Body), slices.Clone(o.Records)
	return t
}

// filesPerSlot draws how many objects a stream gets in five minutes: 1 to 12,
// half of the time at most 3.
func (g *gen) filesPerSlot() int {
	n := int(math.Exp(1.1 + 0.55*g.NormFloat64()))
	return min(max(n, 1), 12)
}

// recordsPerFile draws how many records an object holds: log-normal around 20
// in a busy stream and 5 in a quiet one, with rare large objects.
func (g *gen) recordsPerFile(busy bool) int {
	if g.IntN(200) == 0 {
		return 400 + g.IntN(1300)
	}
	middle, spread := math.Log(5), 0.9
	if busy {
		middle, spread = math.Log(20), 1.4
	}
	return min(max(int(math.Exp(middle+spread*g.NormFloat64())+0.5), 1), 400)
}

// Uniform returns objects of one stream that all hold the same number of
// records, for benchmarks and for drains whose end must be known.
func (c *Corpus) Uniform(objects, records int) iter.Seq[Object] {
	return c.Objects(Traffic{
		Accounts: 1, Regions: Regions()[:1], LogTypes: []string{CloudTrail},
		Slots: objects, FilesPerSlot: 1, Records: records, OneTrail: true,
	})
}
