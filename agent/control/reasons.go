package control

import "github.com/trailpoll/trailpoll/agent/record"

// Reasons returns every reason for which something can be parked.
func Reasons() []record.Reason {
	return []record.Reason{
		record.Corrupt, record.Truncated, record.TrailingData, record.NotJSON, record.TooLarge, record.Bomb,
		record.Denied, record.KMSDenied, record.Archived, record.Changed, record.Refused, record.Oversize,
		record.UnreadableRecord,
	}
}
