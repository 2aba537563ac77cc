// Package agent is the way of the data: it lists streams, fetches the objects
// that are not settled, takes their records out, sends them to the outputs,
// and settles what was acknowledged. It declares the small interfaces it needs
// of buckets, outputs and checkpoints; other packages implement them.
//
// One way for the data:
//
//	lister ─ found objects → queue → fetcher ─ records → delivery ─ batches → output
//	                                                        │
//	checkpoint ← settler ←──────────── acknowledgements ────┘
//
// Each source has listers, a queue and fetchers of its own; each output has a
// delivery. The settler is the one writer of the checkpoint.
//
// The files, in the order in which a record meets them:
//
//   - agent.go: what is set up, started and stopped in which order; config.go and
//     ports.go: what it is set up with, and the interfaces.
//   - source.go: a source at work, what its LISTs say, when to list again;
//     clock.go: S3's time; discover.go: which streams there are; stream.go: a
//     stream and its lanes.
//   - lister.go: passes over a stream, the tail and the sweeps; schedule.go: when
//     each is due; page.go: what a page of one comes to; lane.go: what of a lane is
//     found and open, and its watermark.
//   - job.go: an object to be fetched, for the lanes that want it; queue.go: in
//     which order.
//   - fetch.go: an object becomes records; refetch.go: what becomes of one that
//     could not be read; memory.go and budget.go: the ceiling of what is in flight.
//   - deliver.go: records wait for an output and become batches; stake.go: the
//     memory that they keep meanwhile; attempt.go: a batch is sent, tried again,
//     split; hold.go: an output that fails is held; doubt.go: whether records are
//     refused, or the receiver is at fault.
//   - settle.go: what was acknowledged becomes durable, many in one commit;
//     park.go: what can't be delivered now is kept, and tried again.
//
// Beside the way:
//
//   - resync.go: the orders and how far they are; resyncer.go: those of a source;
//     resync_list.go: a walk over a stream; resync_lane.go: a lane's part;
//     resync_count.go: a dry run.
//   - once.go: a run that ends when all is done.
//   - operator.go: orders about what is parked, and what can be said of an agent
//     that does not run; status.go, coverage.go, meter.go, summary.go: what is seen
//     of one that does; trouble.go: one line when a failure begins and one when it
//     ends.
//   - survey.go: looks at a source to plan, without an agent.
//   - timers.go: calls to come.
package agent
