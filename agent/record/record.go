// Package record holds what travels through trailpoll: a Record, the Object it
// stands in, the Batch it is sent in, and the Confirmation that comes back. It
// imports nothing of ours, so that every other package may import it.
package record

import (
	"context"
	"strconv"
	"time"
)

// Object is one log file in S3, as far as its records need to know it. It is
// shared by all records of the object and never changed once made.
type Object struct {
	Source string            // name of the source, as configured
	Labels map[string]string // labels of the source and of the account; nil if none

	Bucket string
	Key    string // the whole key

	Organization string // "" where the key has no organisation level
	Account      string // 12 digits
	AccountName  string // as configured; "" if it has no name
	Region       string
	LogType      string
	Stamp        time.Time // the time in the object's name, UTC
}

// Record is one event of an object. Raw is what CloudTrail wrote, and it and
// the slices into it belong to the agent: whoever is handed a Record may read
// them until the call that handed it over returns, and never changes them.
type Record struct {
	Object *Object
	Index  int // the record's number in its object, from 0

	// Raw is one valid JSON value in valid UTF-8 that holds no line break.
	Raw []byte

	// EventID is what stands between the quotes of the top-level member
	// eventID, or else eventId; nil if there is none. It is as written, so
	// escapes are still escapes.
	EventID []byte

	// EventTime is the same of the top-level member eventTime (RFC 3339, UTC).
	EventTime []byte
}

// Identity names the record in a way that is the same each time that it is
// sent: its event id, else bucket, key and index.
func (r *Record) Identity() string {
	if len(r.EventID) > 0 {
		return string(r.EventID)
	}
	return r.Object.Bucket + "/" + r.Object.Key + "#" + strconv.Itoa(r.Index)
}

// Time returns the event's time, and the object's stamp for a record that has
// none or one that is no RFC 3339 time.
func (r *Record) Time() time.Time {
	if len(r.EventTime) > 0 {
		if t, err := time.Parse(time.RFC3339, string(r.EventTime)); err == nil {
			return t.UTC()
		}
	}
	return r.Object.Stamp
}

// Batch is what an output sends in one attempt. It is never empty.
type Batch struct {
	Records []Record
	Bytes   int // sum of len(Raw)
}

// Add appends r.
func (b *Batch) Add(r Record) {
	b.Records = append(b.Records, r)
	b.Bytes += len(r.Raw)
}

// Confirmation is the later half of a delivery whose acknowledgement comes
// some time after the write: see agent.Confirmer. It holds no record.
type Confirmation interface {
	// Wait blocks until the batch is acknowledged (nil), is known to be
	// unconfirmed (an error: it must be sent again), or ctx ends. An error that
	// names records (fault.RefusalsOf) says that those can't be taken and all
	// others are acknowledged. It may be called once, from any goroutine.
	Wait(ctx context.Context) error
}

// Reason is why an object, or a single record of it, is parked.
type Reason string

// The reasons; docs/reference.md tells an operator what to do about each.
const (
	Corrupt          Reason = "corrupt"           // not gzip, or its CRC or length is wrong
	Truncated        Reason = "truncated"         // ends before the gzip stream does
	TrailingData     Reason = "trailing-data"     // goes on after the first gzip member
	NotJSON          Reason = "not-json"          // not a log file: broken JSON or no records in it
	TooLarge         Reason = "too-large"         // a record over max_record
	Bomb             Reason = "bomb"              // inflates beyond reason
	Denied           Reason = "denied"            // S3 refuses the object
	KMSDenied        Reason = "kms-denied"        // S3 may be read, but the key may not be used
	Archived         Reason = "archived"          // in an archive class: must be restored first
	Changed          Reason = "changed"           // was overwritten each time that it was read
	Refused          Reason = "refused"           // the receiver refuses the record itself
	Oversize         Reason = "oversize"          // the receiver or max_message can't take so large a record
	UnreadableRecord Reason = "unreadable-record" // one record is not valid JSON in valid UTF-8
)
