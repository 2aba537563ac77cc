// Package torture holds a campaign that tries to make the agent lose, alter or
// needlessly repeat a record. Each round drives the real program, with faults
// drawn from a seed, between an S3 over HTTP that misbehaves and receivers that
// remember the bytes of every record; then all is healed, and what arrived is
// held against what was written.
//
//	TRAILPOLL_TORTURE=10m go test ./cmd/trailpoll/torture -run TestTorture -v -timeout 0
//
// TRAILPOLL_TORTURE is for how long rounds are begun; 90 s if it is not set.
// TRAILPOLL_SEED is the seed of the first round, the next has the next number:
// with what a failure prints and TRAILPOLL_TORTURE=1s that round runs alone.
// TRAILPOLL_TORTURE_AT is the time (RFC 3339) that the stamps of the objects go
// by, and belongs to the seed; the last full hour if it is not set. The draw is
// the same each time; how it meets with the agent's threads is not, so a round
// may have to be played more than once. TRAILPOLL_TORTURE_LOGS names a folder
// that takes the agent's logs of a round that failed. With -short the campaign
// is skipped. What the last campaign found is in docs/reliability.md.
//
// As root the state lies on a small file system of its own, so that its disk can
// be full; the servers have names that a DNS server of the campaign's own knows,
// in some rounds; and in some the agent is in a control group with little memory.
// Else those faults are left out, and the campaign says so.
package torture
