// Package cloudtrail knows what CloudTrail puts in a bucket: how its keys are
// made, how an object is packed, and where in it each record begins and ends.
// Nothing outside this package assumes any of that. It does no I/O of its own,
// keeps no state and starts no goroutine.
//
// An object is read in two steps. An [Inflater] inflates it and proves its
// length and CRC; a [Splitter] walks the inflated bytes once, checks that they
// are JSON, and hands out each record as the bytes that CloudTrail wrote. An
// object that is too large to hold inflated is read twice: once with
// [Inflater.Verify], and then with a Splitter over the Inflater itself.
package cloudtrail
