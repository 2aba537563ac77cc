package syslog

import (
	"errors"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// leftOut gathers the records of a batch that were not sent or were refused.
// The zero value holds none.
type leftOut struct {
	records  []fault.RecordRefusal
	tooLarge bool // one of them, at least
}

// add notes that the record at index was not sent, and why. kind is
// fault.TooLarge or fault.Refused.
func (l *leftOut) add(index int, why string, kind fault.Kind) {
	l.records = append(l.records, fault.RecordRefusal{Index: index, Answer: why, Unsent: true})
	l.tooLarge = l.tooLarge || kind == fault.TooLarge
}

// refused notes records that the receiver does not take.
func (l *leftOut) refused(all ...fault.RecordRefusal) { l.records = append(l.records, all...) }

// err makes the error that names the records, nil for none. It is
// fault.TooLarge, or fault.Refused where none of them is too large: an error has
// one kind, and a record that is refused for another reason then goes with the
// others, its own answer saying why.
func (l *leftOut) err(op string) error {
	if len(l.records) == 0 {
		return nil
	}
	if l.tooLarge {
		return &fault.Error{
			Kind: fault.TooLarge, Op: op, Records: l.records,
			Err:  errors.New("records are longer than max_message"),
			Hint: "raise max_message here and in the receiver",
		}
	}
	return &fault.Error{
		Kind: fault.Refused, Op: op, Records: l.records,
		Err: errors.New("records are refused: " + l.records[0].Answer),
	}
}
