package agent

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/progress"
)

// Config is all that an Agent is made of.
type Config struct {
	Sources []SourceConfig
	Outputs []OutputConfig
	// Dormant are outputs, by name, that are configured and switched off. What
	// they still owe is kept; that of an output no longer configured is dropped.
	Dormant    []string
	Checkpoint Checkpoint
	Log        zerolog.Logger

	Downloads    int           // objects fetched at once, for each source; 0 = by the machine
	Memory       int64         // bytes of records in flight, with all that is made of them
	MaxRecord    int           // bytes
	DrainTimeout time.Duration // how long an orderly stop waits for what is in flight

	// Now is the local wall clock; nil = time.Now. It stands in for S3's clock
	// until S3 has first answered, and for nothing else.
	Now func() time.Time

	// Once ends Run when every stream has been listed to its end and all of it
	// is delivered or parked. Sweep makes those listings go back over the
	// whole late horizon.
	Once  bool
	Sweep bool

	// Only, if not 0, is a re-sync that alone is to be worked at, with those
	// that stand before it: nothing else is listed, and Run ends when it is over.
	Only progress.ResyncID

	reach reach // where listings begin; another one only in tests
}

// inFlight returns how many bytes of records may be in flight before outputs
// copy them: an output that sends makes of each batch a body of about its size.
// A quarter of the memory is for what is known of the records and for garbage:
// with no room beside what is alive the collector would never rest.
func (c *Config) inFlight() int64 {
	copies := int64(0)
	for i := range c.Outputs {
		copies += int64(c.Outputs[i].Connections) * int64(c.Outputs[i].BatchBytes)
	}
	return c.Memory - c.Memory/4 - min(copies, c.Memory/4)
}

// SourceConfig is one source.
type SourceConfig struct {
	Name   string
	Labels map[string]string
	Store  Bucket
	Bucket string // name
	Prefix string // without "AWSLogs/", without slashes at its ends

	// Pinned levels; what is empty is discovered. Organizations may be
	// ["none"]: there is no such level.
	Organizations, Accounts, LogTypes, Regions []string
	ExcludeAccounts, ExcludeRegions            []string
	AccountInfo                                map[string]AccountInfo

	// Filter says which records go on; nil = all.
	Filter Filter

	// Start resolves the configured start at the instant the source is first seen.
	Start func(now time.Time) time.Time

	Refresh, IdleRefresh, LookBack, LateHorizon, Discovery time.Duration
	MaxListsPerMinute                                      int // 0 = no cap
}

// AccountInfo is what is configured of one account.
type AccountInfo struct {
	Name   string
	Labels map[string]string
}

// id returns the name of the source's state.
func (c *SourceConfig) id() progress.SourceID { return SourceID(c.Bucket, c.Prefix) }

// SourceID returns the name of the state of a bucket and prefix.
func SourceID(bucket, prefix string) progress.SourceID {
	return progress.SourceID(bucket + "/" + prefix)
}

// OutputConfig is one output with the size of its batches.
type OutputConfig struct {
	Name    string
	Sources []string // names; empty = all
	Output  Output

	BatchRecords int
	BatchBytes   int // of raw records; a single record may be larger
	BatchWait    time.Duration
	Connections  int // Sends at once

	// Unacknowledged says that the transport has no acknowledgement (UDP):
	// for the log, and for whoever asks for the state.
	Unacknowledged bool
}

func (c *OutputConfig) takes(source string) bool {
	if len(c.Sources) == 0 {
		return true
	}
	for _, s := range c.Sources {
		if s == source {
			return true
		}
	}
	return false
}
