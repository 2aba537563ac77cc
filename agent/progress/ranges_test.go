package progress

import (
	"testing"

	"pgregory.net/rapid"
)

// Ranges is held against a plain set of numbers.
func TestRangesAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Ranges
		model := map[int]bool{}
		for range rapid.IntRange(0, 30).Draw(t, "adds") {
			from := rapid.IntRange(0, 60).Draw(t, "from")
			to := from + rapid.IntRange(0, 12).Draw(t, "n")
			r = r.Add(from, to)
			for i := from; i < to; i++ {
				model[i] = true
			}
			for i, x := range r {
				if x.From >= x.To || i > 0 && r[i-1].To >= x.From {
					t.Fatalf("not ascending and apart: %v", r)
				}
			}
			if r.Len() != len(model) {
				t.Fatalf("Len %d, want %d: %v", r.Len(), len(model), r)
			}
			for i := range 80 {
				if r.Has(i) != model[i] {
					t.Fatalf("Has(%d) = %v: %v", i, r.Has(i), r)
				}
			}
		}
		gone := rapid.IntRange(0, 79).Draw(t, "gone")
		before := r.String()
		less := r.Remove(gone)
		for i := range 80 {
			if less.Has(i) != (model[i] && i != gone) {
				t.Fatalf("without %d, Has(%d) = %v: %v", gone, i, less.Has(i), less)
			}
		}
		if r.String() != before {
			t.Fatalf("removing changed %v, which was %s", r, before)
		}
	})
}

func TestRangesAreWritten(t *testing.T) {
	for want, r := range map[string]Ranges{
		"":              nil,
		"0-9":           {{0, 10}},
		"3-3,7-9,20-20": {{3, 4}, {7, 10}, {20, 21}},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
