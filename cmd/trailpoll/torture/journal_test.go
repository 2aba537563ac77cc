//go:build linux

package torture

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"
)

// digest stands for the bytes of a record.
type digest [16]byte

func digestOf(raw []byte) digest {
	s := sha256.Sum256(raw)
	return digest(s[:16])
}

// request is one delivery that a receiver took records from.
type request struct {
	run     int
	at, due time.Time // when it was taken, and when it is answered
	lost    bool      // the agent may never have got the answer
}

// journal notes which delivery, of which run of the agent, brought each record,
// and so knows what made a record come again.
type journal struct {
	mu       sync.Mutex
	takes    map[digest][]*request
	raw      map[digest][]byte // to show those that nobody wrote
	requests []*request
	killed   map[int]bool
	// forgotten: what runs up to this one brought, the state may have lost.
	forgotten int
	received  int
}

// noRun is none; the syslog receiver does not know of which run a message is.
const noRun = -1

func newJournal() *journal {
	return &journal{takes: map[digest][]*request{}, raw: map[digest][]byte{}, killed: map[int]bool{}, forgotten: noRun}
}

// take notes records that came in one delivery.
func (j *journal) take(run int, delay time.Duration, lost bool, records [][]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	q := &request{run: run, at: now, due: now.Add(delay), lost: lost}
	j.requests = append(j.requests, q)
	for _, raw := range records {
		d := digestOf(raw)
		j.takes[d] = append(j.takes[d], q)
		j.raw[d] = raw
		j.received++
	}
}

// lose notes that the answers due between the two instants may not have come.
func (j *journal) lose(from, to time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, q := range j.requests {
		if !q.at.After(to) && !q.due.Before(from) {
			q.lost = true
		}
	}
}

// kill notes that a run was ended by force.
func (j *journal) kill(run int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.killed[run] = true
}

// forget notes that the state was damaged after a run.
func (j *journal) forget(run int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.forgotten = run
}

// expectations are what a receiver must get and what it may get.
type expectations struct {
	must  map[digest]int    // how often it was written
	may   map[digest]int    // of objects that were deleted or written over
	where map[digest]string // key and number, of one place where it was written
	// Of an object that was written over, all records of one of its contents
	// must come; of the second all must if any does.
	either []overwritten
}

func newExpectations() *expectations {
	return &expectations{must: map[digest]int{}, may: map[digest]int{}, where: map[digest]string{}}
}

// overwritten is an object that was written over, with the records of each content.
type overwritten struct {
	key      string
	contents [2][]digest
}

// overwrite notes an object that is written over.
func (e *expectations) overwrite(key string, first, second []digest) {
	e.either = append(e.either, overwritten{key, [2][]digest{first, second}})
	for _, content := range [][]digest{first, second} {
		for _, d := range content {
			e.may[d]++
		}
	}
}

// verdict is what the comparison found, counted in records.
type verdict struct {
	written, received        int
	lost, altered            int
	repeated                 int // by any cause
	byLost, byKill, byDamage int // ... of which by these
	unexcused                int
	most                     int // after one kill
	worst                    int // the run of that kill
	// objects written over of which no content came whole, or the first did and
	// the second in part
	halves  int
	missing []string // where some of the lost ones were written
	strange []string // some of the altered ones
}

// String is the verdict on one line, less what is missing.
func (v *verdict) String() string {
	return fmt.Sprintf("written %d, received %d, lost %d, altered %d, repeated %d (by lost answers %d, by kills %d, "+
		"at most %d after that of run %d, by damage %d, unaccounted for %d), %d written over and not whole",
		v.written, v.received, v.lost, v.altered, v.repeated, v.byLost, v.byKill, v.most, v.worst, v.byDamage, v.unexcused, v.halves)
}

// judge holds what came against what is expected.
func (j *journal) judge(e *expectations) (v verdict) {
	j.mu.Lock()
	defer j.mu.Unlock()
	charged := map[int]int{}
	v.received = j.received
	for d, n := range e.must {
		v.written += n
		if gap := n - len(j.takes[d]); gap > 0 {
			v.lost += gap
			if len(v.missing) < 20 {
				v.missing = append(v.missing, fmt.Sprintf("%s, %d of %d times", e.where[d], gap, n))
			}
		}
	}
	for d, takes := range j.takes {
		want := e.must[d] + e.may[d]
		if want == 0 {
			v.altered += len(takes)
			if len(v.strange) < 20 {
				v.strange = append(v.strange, fmt.Sprintf("in run %d: %.3000q", takes[0].run, j.raw[d]))
			}
			continue
		}
		again := len(takes) - want
		if again <= 0 {
			continue
		}
		v.repeated += again
		// Each repeat has an earlier delivery that accounts for it: one that
		// went unanswered first, since that costs no kill its bound.
		earlier := takes[:len(takes)-1]
		var kills []int
		for _, q := range earlier {
			switch {
			case again == 0:
			case q.run != noRun && q.run <= j.forgotten:
				v.byDamage++
				again--
			case q.lost:
				v.byLost++
				again--
			case j.killed[q.run]:
				kills = append(kills, q.run)
			}
		}
		for _, run := range kills {
			if again > 0 {
				charged[run]++
				v.byKill++
				again--
			}
		}
		v.unexcused += again
	}
	for run, n := range charged {
		if n > v.most {
			v.most, v.worst = n, run
		}
	}
	for _, o := range e.either {
		// What is delivered last is delivered whole. The second content need not
		// come: the first may have been settled, or fetched, before.
		whole, gaps := false, ""
		for n, content := range o.contents {
			var missing []int
			for i, d := range content {
				if len(j.takes[d]) == 0 {
					missing = append(missing, i)
				}
			}
			switch {
			case len(missing) == 0:
				whole = true
			case n == 1 && len(missing) < len(content):
				whole = false // begun, and not ended
			}
			gaps += fmt.Sprintf("; of the %d records of content %d, %d: %v", len(content), n+1, len(missing), missing[:min(len(missing), 20)])
		}
		if !whole {
			v.halves++
			v.missing = append(v.missing, o.key+gaps)
		}
	}
	return v
}
