package progress

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Cover is held against the latest AsOf of each minute by itself.
func TestCoverAgainstMinutes(t *testing.T) {
	epoch := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }
	rapid.Check(t, func(t *rapid.T) {
		var windows []Covered
		model := map[int]time.Time{}
		for range rapid.IntRange(0, 12).Draw(t, "windows") {
			from := rapid.IntRange(0, 40).Draw(t, "from")
			to := from + rapid.IntRange(0, 15).Draw(t, "n")
			asOf := at(1000 + rapid.IntRange(0, 5).Draw(t, "as of"))
			windows = Cover(windows, Covered{at(from), at(to), asOf})
			for n := from; n < to; n++ {
				model[n] = maxTime(model[n], asOf)
			}
			for i, w := range windows {
				if !w.From.Before(w.To) || i > 0 && w.From.Before(windows[i-1].To) {
					t.Fatalf("not ascending and apart: %v", windows)
				}
				if i > 0 && w.From.Equal(windows[i-1].To) && w.AsOf.Equal(windows[i-1].AsOf) {
					t.Fatalf("two that are one: %v", windows)
				}
			}
			for n := range 60 {
				if got := CoveredAt(windows, at(n)); !got.Equal(model[n]) {
					t.Fatalf("minute %d is covered as of %v, want %v: %v", n, got, model[n], windows)
				}
			}
		}
	})
}

func TestResyncWants(t *testing.T) {
	r := Resync{Sources: []SourceID{"a/"}, Outputs: []string{"siem"}, Accounts: []string{"1"}, Regions: []string{"eu"}}
	lane := Lane{Source: "a/", Stream: Stream{Account: "1", LogType: "CloudTrail", Region: "eu"}, Output: "siem"}
	if !r.Wants(&lane) {
		t.Error("its own lane is not wanted")
	}
	for name, change := range map[string]func(*Lane){
		"source":  func(l *Lane) { l.Source = "b/" },
		"output":  func(l *Lane) { l.Output = "other" },
		"account": func(l *Lane) { l.Stream.Account = "2" },
		"region":  func(l *Lane) { l.Stream.Region = "us" },
	} {
		other := lane
		change(&other)
		if r.Wants(&other) {
			t.Errorf("a lane of another %s is wanted", name)
		}
	}
}
