package cloudtrail

import (
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/progress"
)

func TestInstant(t *testing.T) {
	s := progress.Stream{Account: "111122223333", LogType: "CloudTrail-Insight", Region: "eu-west-1"}
	at := time.Date(2026, 11, 20, 18, 15, 0, 0, time.UTC)
	if got, ok := Instant(Floor(s, at)); !ok || !got.Equal(at) {
		t.Errorf("of a floor: %v, %v", got, ok)
	}
	const name = "111122223333_CloudTrail_us-east-1_"
	for position, want := range map[string]string{
		"2026/11/20/" + name + "20261120T1815Z_AbCdEf0123456789.json.gz": "2026-11-20T18:15:00Z",
		"2026/11/20/" + name + "20261120T1815ZAbCdEf.json.gz":            "2026-11-20T18:15:00Z",
		// delivered again under another day: it stands at that day's end
		"2026/11/20/" + name + "20261018T1815Z_AbCdEf0123456789.json.gz": "2026-11-20T00:00:00Z",
		"2026/11/20/" + name + "20261121T0005Z_AbCdEf0123456789.json.gz": "2026-11-20T23:59:00Z",
		"2026/11/20/":                              "",
		"2026/13/20/" + name + "20261120T1815Z":    "",
		"2026/11/20/" + name + "2026":              "",
		"2026/11/20/111122223333_20261120T1815Z_x": "",
		"": "",
	} {
		got, ok := Instant(position)
		switch {
		case ok != (want != ""):
			t.Errorf("%q: %v, %v", position, got, ok)
		case ok && got.Format(time.RFC3339) != want:
			t.Errorf("%q: %v, want %s", position, got, want)
		}
	}
}
