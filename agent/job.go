package agent

import (
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// found is an object as a listing showed it. Never changed once made.
type found struct {
	stream   *stream
	entry    listing.Entry
	position string
	object   *record.Object
}

// job is one object to be fetched, for the lanes that want it. Whoever holds
// the job — the queue, then one download worker — owns it.
type job struct {
	*found
	class   class
	targets []*target

	failures int    // attempts in a row that failed in a way that may park it
	tries    int    // attempts in a row that failed at all
	absent   int    // of these, how often there was no such object
	fresh    string // the ETag to ask for, once the listed one was found changed
}

// live drops the targets that nobody waits for any more and reports whether
// any is left.
func (j *job) live() bool {
	j.stream.mu.Lock()
	defer j.stream.mu.Unlock()
	n := 0
	for _, t := range j.targets {
		if t.resync != nil {
			t.resync.drop(t)
		}
		if !t.abandoned && !t.settled {
			j.targets[n] = t
			n++
		}
	}
	clear(j.targets[n:])
	j.targets = j.targets[:n]
	return n > 0
}

// target is an object on its way in one lane. What may change is guarded by
// its stream's mutex.
type target struct {
	*found
	lane  *lane
	class class

	// acked are the records settled: acknowledged, or parked by themselves.
	acked progress.Ranges
	// etag is that of the content in which acked counts; "" until it is read.
	etag string
	// retry are the parked entries that this is a new attempt at; nil for an
	// object that a listing found. only are the records wanted, nil for all.
	retry   []progress.Entry
	only    progress.Ranges
	renewed map[int]bool // those of retry that are parked anew

	// doubted are the records that the receiver refused, when it had taken
	// something doubtedAt times, and doubts how often that came about: see
	// doubt.go. suspected says that the target counts among its lane's failing.
	doubted   progress.Ranges
	doubtedAt uint64
	doubts    int
	suspected bool

	total       int // records of the object; -1 until it has been read to its end
	outstanding int // records handed to the output that have not come back
	broken      *broken
	lost        bool // something did not arrive for certain: it must be fetched again
	again       *job // ... as this job, if not nil
	wait        time.Duration

	// resync is the part of a re-sync that found it; adopted says that a listing
	// wants it, too.
	resync  *resyncLane
	adopted bool

	settled   bool // by the next commit, or before
	abandoned bool // its lane no longer waits for it
	sweeps    []*sweep
}

// broken is why what is left of an object can't be delivered.
type broken struct {
	reason record.Reason
	err    error
	at     int // record; -1 if unknown
}

// wants reports whether the record still has to be sent.
func (t *target) wants(i int) bool {
	return (t.only == nil || t.only.Has(i)) && !t.acked.Has(i)
}

// done reports whether every record that was wanted is settled.
func (t *target) done() bool {
	if t.total < 0 || t.outstanding > 0 || t.broken != nil || t.lost {
		return false
	}
	if t.only == nil {
		return t.acked.Len() >= t.total
	}
	for _, r := range t.only {
		for i := r.From; i < min(r.To, t.total); i++ {
			if !t.acked.Has(i) {
				return false
			}
		}
	}
	return true
}

// retried returns which of the entries being tried again is about that record.
func (t *target) retried(rec int) int {
	return slices.IndexFunc(t.retry, func(e progress.Entry) bool { return e.Record == rec })
}

// failing counts the job's targets as waiting to be tried again (n 1) or no
// longer (n -1).
func (j *job) failing(n int) {
	j.stream.mu.Lock()
	defer j.stream.mu.Unlock()
	for _, t := range j.targets {
		if t.retry == nil && t.resync == nil && !t.abandoned && t.class != live {
			t.lane.failing += n
		}
	}
	if n > 0 {
		j.stream.room()
	}
}

// retryDelay is how long after its n-th failure an object is tried again: four
// attempts fall within 20 s.
func retryDelay(n int) time.Duration {
	switch n {
	case 1:
		return time.Second
	case 2:
		return 4 * time.Second
	case 3:
		return 10 * time.Second
	}
	return min(time.Duration(n-3)*15*time.Second, 5*time.Minute)
}

// attempts is how many attempts are made at an object before it is parked.
const attempts = 4
