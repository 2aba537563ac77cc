package agent

import (
	"context"
	"time"

	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Bucket is where a source's objects are. All methods may be called
// concurrently and make one bounded attempt (retries inside it last seconds at
// most); their errors are classified as fault.Error.
type Bucket interface {
	// List returns one page, in S3's order, with S3's time.
	List(ctx context.Context, r listing.Request) (listing.Page, error)
	// Get opens an object. With ifMatch, an ETag, it fails with fault.Changed
	// where the object is another one by now. The caller closes the body.
	Get(ctx context.Context, key, ifMatch string) (listing.Body, error)
}

// Output is where records go. Send may be called by as many goroutines at once
// as OutputConfig.Connections says.
type Output interface {
	// Send makes one attempt to deliver a batch. It returns nil only when the
	// receiver has acknowledged every record of it. Its error is a fault.Error
	// whose kind says what to do next; the agent retries, splits, parks and
	// holds. The batch's memory is valid until Send returns and not after.
	Send(ctx context.Context, b *record.Batch) error
	// Close lets connections go. Nothing is sent by it.
	Close() error
}

// Confirmer is an Output whose acknowledgement comes some time after the
// write. The agent keeps of such a batch what it was and not its bytes, and
// reads it again from S3 if it is not confirmed.
type Confirmer interface {
	// Write makes one attempt to write a batch. When it returns no error the
	// whole batch has been written, and the Confirmation tells when it is
	// acknowledged; a nil Confirmation says that it is settled by being
	// written. Errors and the batch's memory are as with Output.Send.
	Write(ctx context.Context, b *record.Batch) (record.Confirmation, error)
}

// Filter says which records of a source go on. What it leaves out counts as
// settled.
type Filter interface {
	// Keep reports whether the record is to be delivered. It may be called from
	// any goroutine, must say the same each time, and keeps nothing of r.
	Keep(r *record.Record) bool
}

// Checkpoint keeps the agent's progress. Reads may run beside each other and
// beside a Commit; there is one Commit at a time.
type Checkpoint interface {
	// Source returns what is remembered of a source.
	Source(id progress.SourceID) (s progress.Source, found bool, err error)
	// Heads returns the heads of all lanes remembered of a source and an output.
	Heads(id progress.SourceID, output string) (map[progress.Stream]progress.Head, error)
	// Lookup tells how each position, ascending, stands in the lane. It
	// appends to into and returns it.
	Lookup(l progress.Lane, positions []string, into []progress.State) ([]progress.State, error)
	// Commit makes all of the changes durable, or none. When it has returned
	// nil they survive a power cut.
	Commit(c *progress.Changes) error
}

// ParkedBook is the part of a checkpoint that lists what is parked.
type ParkedBook interface {
	// Parked calls yield for every parked entry until it returns false. The
	// entry belongs to the callee.
	Parked(yield func(progress.Entry) bool) error
}

// ResyncBook is the part of a checkpoint that keeps re-syncs.
type ResyncBook interface {
	// Resyncs returns all re-syncs that are remembered, ascending by id.
	Resyncs() ([]progress.Resync, error)
	// ResyncHeads returns the heads of all lanes of a re-sync.
	ResyncHeads(id progress.ResyncID) (map[progress.Lane]progress.Head, error)
	// Covered returns the windows of a lane that re-syncs have gone over.
	Covered(l progress.Lane) ([]progress.Covered, error)
}

// Keeper is the part of a checkpoint that looks after itself when asked.
type Keeper interface {
	// Maintain does what is due by now (S3's clock): packing, pruning. It
	// works in steps that hold no Commit up for long, and ends early with ctx.
	Maintain(ctx context.Context, now time.Time) error
	// Forget drops the lanes of an output that a source no longer has, and
	// returns how many objects it still owed.
	Forget(id progress.SourceID, output string) (owed int, err error)
	// Rebuilt reports that the state before this one was lost: a source that
	// is first seen begins at the late horizon, whatever its start says.
	Rebuilt() bool
	// ClearRebuilt ends that: all sources have been met.
	ClearRebuilt() error
}
