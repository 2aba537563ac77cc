// Package fault says what an error means for the work, so that whoever meets
// an error (the S3 client, an output) classifies it once, and whoever must act
// on it (the agent) asks for the kind and never for a library's types. It
// imports nothing of ours.
package fault

import (
	"errors"
	"time"
)

// Kind is what an error means.
type Kind int

// The kinds. The zero value is Temporary: what nobody could classify is tried
// again.
const (
	// Temporary passes by itself: a broken connection, a timeout, a 5xx.
	Temporary Kind = iota
	// Throttled is Temporary, with the wish to be asked less often.
	Throttled

	// From S3, about one object.

	// Gone: there is no such object.
	Gone
	// Changed: the object is not the one that was listed (If-Match failed).
	Changed
	// Archived: the object must be restored before it can be read.
	Archived
	// Denied: the identity may not do this.
	Denied
	// KMSDenied: the object may be read, its key may not be used, or is disabled.
	KMSDenied

	// From S3, about the source as a whole: the next object would fail alike.

	// NoBucket: there is no such bucket.
	NoBucket
	// WrongRegion: the bucket is in another region; Error.Region names it if S3 said so.
	WrongRegion
	// BadCredentials: unknown, expired or wrongly signed.
	BadCredentials
	// Unreachable: no DNS answer, no connection, no TLS.
	Unreachable
	// Misconfigured: what was asked can't work, e.g. FIPS where there is none.
	Misconfigured

	// From an output.

	// TooLarge: the batch is too large to be taken whole; halves may be taken.
	TooLarge
	// Refused: records of the batch are refused for what they are. Where
	// Error.Records is empty the output can't tell which.
	Refused
	// Held: nothing that is sent now will be taken: refused token, unreachable,
	// certificate not trusted. The output waits and is tried again slowly.
	Held
)

var names = [...]string{
	"temporary", "throttled", "gone", "changed", "archived", "denied", "kms-denied", "no-bucket",
	"wrong-region", "bad-credentials", "unreachable", "misconfigured", "too-large", "refused", "held",
}

// String returns the kind's name as logs show it.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// Error is an error with what it means. Its text holds no secret and no part
// of a record.
type Error struct {
	Kind Kind
	// Op is what was tried, as a gerund: "listing s3://bucket/prefix".
	Op string
	// Err is what went wrong.
	Err error
	// Hint says what an operator can do; "" where nothing but waiting helps.
	Hint string
	// RetryAfter is how long the other side asks to be left alone; 0 if it did not say.
	RetryAfter time.Duration
	// Region is the bucket's true region, with WrongRegion.
	Region string
	// Records are the records that can't be taken, with Refused and TooLarge.
	// If there are any, all others of the batch were taken and acknowledged.
	Records []RecordRefusal
	// Unsure, with Refused: the receiver says the same when something is wrong
	// with itself, so that one refusal of a record proves little.
	Unsure bool
}

// RecordRefusal is one record of a batch that a receiver refused.
type RecordRefusal struct {
	Index  int    // in Batch.Records
	Answer string // what the receiver said, shortened, without the record's content
	// Unsent: the receiver was not asked. The output knows by itself that the
	// record can't be sent.
	Unsent bool
}

// Error returns the operation and the cause, without the hint.
func (e *Error) Error() string {
	switch {
	case e.Err == nil && e.Op == "":
		return e.Kind.String()
	case e.Err == nil:
		return e.Op + ": " + e.Kind.String()
	case e.Op == "":
		return e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first Error in err's chain, else Temporary.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Temporary
}

// HintOf returns the hint of the first Error in err's chain that has one.
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// RetryAfterOf returns how long the other side asked to be left alone, 0 if it
// did not.
func RetryAfterOf(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// UnsureOf reports whether a refusal may have another cause than the records.
func UnsureOf(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Unsure
}

// RefusalsOf returns the records of a batch that were refused, where the
// output could tell which.
func RefusalsOf(err error) []RecordRefusal {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Records
	}
	return nil
}
