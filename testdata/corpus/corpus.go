// Package corpus makes CloudTrail log files as they stand in S3, together with
// the exact bytes of each record that must come out of them. It is the
// project's own test data: nothing in it was copied from anybody's logs, all
// names are invented, account ids and addresses are those set aside for
// documentation (RFC 5737, RFC 3849).
//
// Shares, sizes and odd cases follow what was measured in published CloudTrail
// logs; see the README beside this package's folder. Everything follows from
// the seed: the same seed gives the same keys and records in every run and on
// every system. Objects come out of iterators one by one, so that a corpus of
// any size needs the memory of one object.
//
// The package builds keys, envelopes and expected bytes by its own means and
// imports none of the code that it tests (only record, for the reasons).
package corpus

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Epoch is the first stamp of what is made without any other wish, UTC.
var Epoch = time.Date(2026, 11, 3, 22, 0, 0, 0, time.UTC)

// Kind is what an object is.
type Kind int

// The kinds. Only a Log holds records; all others must be passed over.
const (
	Log     Kind = iota // a log file of one of the four log types
	Digest              // a digest file
	Marker              // a folder marker: an empty object whose key ends in "/"
	Foreign             // whatever else lies in such a bucket: Config's files, a stray note
)

// String returns the kind's name.
func (k Kind) String() string {
	return [...]string{"log", "digest", "marker", "foreign"}[k]
}

// Object is one object of the bucket. It belongs to the caller.
type Object struct {
	Name string // which odd or bad case it is; "" for ordinary traffic
	Kind Kind
	Key  string
	Body []byte // as stored: gzip, for Log and Digest

	// Of a Log: where its key says that it belongs, and the time in its name.
	Prefix       string // the trail's S3 key prefix, without "AWSLogs/"
	Organization string // "" where the key has no such level
	Account      string
	LogType      string
	Region       string
	Stamp        time.Time

	// AppearsAt is when the object is written: from five minutes before its
	// stamp to three after it, and not in the order of the keys.
	AppearsAt time.Time

	// Records are the records that must be delivered, in their order. For a
	// bad object they are what must be delivered nevertheless.
	Records []Record
}

// Record is one record that must be delivered.
type Record struct {
	Index int // the record's number in its object, from 0

	// Raw is what must arrive, byte for byte: what stands in the object less
	// every run of white space outside strings that holds a line break.
	Raw []byte

	// EventID is the top-level eventID, else eventId, as written; "" if none.
	EventID string
	// EventTime is the top-level eventTime as written; "" if none.
	EventTime string
}

// Identity is the record's identity as object o in the bucket gives it: its
// event id, else bucket, key and index.
func (r *Record) Identity(bucket string, o *Object) string {
	if r.EventID != "" {
		return r.EventID
	}
	return bucket + "/" + o.Key + "#" + itoa(r.Index)
}

// Corpus makes objects from a seed. It holds no state but the seed, so that
// its methods may be called in any order, again, and from any goroutine; each
// gives the same each time.
type Corpus struct {
	seed uint64
}

// New returns the corpus of a seed.
func New(seed uint64) *Corpus { return &Corpus{seed: seed} }

// gen is one sequence of choices with the place that they are made for. It is
// owned by one goroutine.
type gen struct {
	*rand.Rand
	account string
	region  string
	logType string
}

// gen returns the sequence with this name and number.
func (c *Corpus) gen(name string, n int) *gen {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return &gen{
		Rand:    rand.New(rand.NewPCG(c.seed^h.Sum64(), uint64(n)+0x9e3779b97f4a7c15)),
		account: accounts[0],
		region:  Regions()[0],
		logType: CloudTrail,
	}
}

// chance says yes with probability p.
func (g *gen) chance(p float64) bool { return g.Float64() < p }
