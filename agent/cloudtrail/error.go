package cloudtrail

import (
	"errors"
	"fmt"

	"github.com/trailpoll/trailpoll/agent/record"
)

// ErrHold says that an object is too large to hold inflated (Limits.Hold), and
// that it is whole: length and CRC are as they should be. It is read a second
// time, with a Splitter over the Inflater.
var ErrHold = errors.New("inflating an object: too large to hold at once")

// Error says what is wrong with an object or with one record of it, and where.
// Its text holds no part of the object.
type Error struct {
	Reason record.Reason
	// Record is the number of the record that was being read, from 0: so many
	// records before it are whole. -1 if unknown.
	Record int
	// Offset is the byte of the inflated object at which the fault showed.
	Offset int64
	// RecordOnly: this one record is unfit and the reading goes on behind it.
	// Otherwise the rest of the object can't be read.
	RecordOnly bool
	// Err says what is wrong.
	Err error
}

// Error returns what was read, where, and what is wrong.
func (e *Error) Error() string {
	if e.Record < 0 {
		return fmt.Sprintf("reading the object at inflated byte %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("reading record %d at inflated byte %d: %v", e.Record, e.Offset, e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// atRecord returns err, with the record's number if it is an *Error that has
// none.
func atRecord(err error, index int) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Record < 0 {
		at := *e
		at.Record = index
		return &at
	}
	return err
}
