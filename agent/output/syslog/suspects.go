package syslog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/trailpoll/trailpoll/agent/record"
)

// suspects finds the record at which a receiver breaks the connection each time,
// as librelp does with a message over its limit: without that, one record would
// hold up the output for ever.
//
// When sessions break one after the other, one message at a time is sent. A
// record at which two sessions broke is then sent last. If all others were taken
// and the session breaks at it once more, it is guilty: it is refused without
// being sent, for a while. A receiver that merely dies now and then does not do
// that.
//
// The zero value knows of nothing. Not safe for concurrent use.
type suspects struct {
	breaks int            // sessions in a row that the receiver broke
	at     map[string]int // how many of them broke at a record, when no other was outstanding
	guilty map[string]time.Time
}

const (
	oneByOne  = 2 // breaks after which one message at a time is sent
	suspicion = 2 // breaks at a record after which it is sent last
	// guiltFor is how long a record is refused without being sent. The receiver's
	// limit may be raised meanwhile, and parked records are tried again.
	guiltFor = 10 * time.Minute
	// maxGuilty is how many records are remembered as guilty. Of more the oldest
	// are forgotten: they are found once more, if they come again.
	maxGuilty = 1000
)

// nameOf names a record of a bucket.
func nameOf(r *record.Record) string {
	return fmt.Sprintf("%s/%s#%d", r.Object.Bucket, r.Object.Key, r.Index)
}

// idle reports whether nothing is suspected.
func (s *suspects) idle() bool { return s.breaks == 0 && len(s.guilty) == 0 }

// of returns which records of a batch are to be sent last, and which not at all.
func (s *suspects) of(b *record.Batch) (last, never []int) {
	for i := range b.Records {
		name := nameOf(&b.Records[i])
		if since, found := s.guilty[name]; found {
			if time.Since(since) < guiltFor {
				never = append(never, i)
				continue
			}
			delete(s.guilty, name)
		}
		if s.at[name] >= suspicion {
			last = append(last, i)
		}
	}
	return last, never
}

// window is how many messages may be outstanding.
func (s *suspects) window(usual int) int {
	if s.breaks >= oneByOne {
		return 1
	}
	return usual
}

// broke notes that the receiver broke the session at r, nil for none. alone says
// that all others of the batch were taken.
func (s *suspects) broke(r *record.Record, alone bool) {
	s.breaks++
	if r == nil || s.breaks <= oneByOne { // more than one was outstanding
		return
	}
	name := nameOf(r)
	if alone {
		if s.guilty == nil {
			s.guilty = map[string]time.Time{}
		}
		s.forget()
		s.guilty[name] = time.Now()
		return
	}
	if s.at == nil || len(s.at) >= maxGuilty {
		s.at = map[string]int{}
	}
	s.at[name]++
}

// forget makes room for another guilty record: what was guilty for long enough
// goes, and if that is not enough, the oldest.
func (s *suspects) forget() {
	if len(s.guilty) < maxGuilty {
		return
	}
	oldest, at := "", time.Time{}
	for name, since := range s.guilty {
		if time.Since(since) >= guiltFor {
			delete(s.guilty, name)
		} else if at.IsZero() || since.Before(at) {
			oldest, at = name, since
		}
	}
	if len(s.guilty) >= maxGuilty {
		delete(s.guilty, oldest)
	}
}

// works notes that a batch was taken.
func (s *suspects) works() { s.breaks, s.at = 0, nil }

// receiverBroke reports whether it was the receiver, or what is between, that
// ended a session.
func receiverBroke(err error) bool {
	return !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errNoRELP)
}

// guilty is the answer for a record that is refused without being sent.
func guilty(r *record.Record) string {
	return fmt.Sprintf("the receiver breaks the connection at this record of %d bytes, each time", len(r.Raw))
}

// except returns the numbers below n that are not in lists.
func except(n int, lists ...[]int) []int {
	var rest []int
	for i := range n {
		if !slices.ContainsFunc(lists, func(l []int) bool { return slices.Contains(l, i) }) {
			rest = append(rest, i)
		}
	}
	return rest
}
