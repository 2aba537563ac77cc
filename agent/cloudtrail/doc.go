// Package cloudtrail knows what CloudTrail puts in a bucket: how its keys are
// made, how an object is packed, and where in it each record begins and ends.
// Nothing outside this package assumes any of that. It does no I/O of its own,
// keeps no state and starts no goroutine.
//
// The grammar of keys is that of the CloudTrail user guide, "Finding your CloudTrail
// log files", with the older form that has no "_" before the unique part:
//
//	[prefix/]AWSLogs/[o-…/]<account>/<log type>/<region>/<position>
//	position = YYYY/MM/DD/<account>_<log type>_<region>_YYYYMMDDTHHmmZ[_]<unique>.json.gz
//
// Control Tower's two organisation levels are no case of their own: the first
// is the trail's prefix.
//
// An object is read in two steps. An [Inflater] inflates it and proves its
// length and CRC; a [Splitter] walks the inflated bytes once, checks that they
// are JSON, and hands out each record as the bytes that CloudTrail wrote. An
// object that is too large to hold inflated is read twice: once with
// [Inflater.Verify], and then with a Splitter over the Inflater itself.
package cloudtrail
