package redact_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/output/redact"
	"github.com/trailpoll/trailpoll/agent/record"
)

func TestRecords(t *testing.T) {
	records := []record.Record{
		{Raw: []byte(`{"secret":"hunter2-hunter2","a":1}`)}, {Raw: []byte(`{}`)}, {Raw: []byte(`{"other":"0123456789"}`)},
	}
	for in, want := range map[string]string{
		"":          "",
		"no":        "no",
		"too large": "too large",
		`bad {"secret":"hunter2-hunter2","a":1}!`: "bad …!",
		"hunter2-":                              "…",
		"hunter2":                               "hunter2", // too short to be told from a word
		"x hunter2-hunter2 y 0123456789 z":      "x … y … z",
		"hunter2-01234567":                      "…", // one quotation after the other
		"0123456789" + strings.Repeat("x", 100): "…" + strings.Repeat("x", 30),
	} {
		if got := redact.Records([][]byte{[]byte(in)}, records, 40); string(got[0]) != want {
			t.Errorf("%q: %q, want %q", in, got[0], want)
		}
	}
	if got := redact.Records(nil, records, 40); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// Whatever is quoted of whatever record, no eight bytes of any are left, and what
// is left was there.
func TestInvariant10_NothingOfARecordIsLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.SampledFrom([]byte("abc")), 0, 60)
		records := []record.Record{{Raw: raw.Draw(t, "a")}, {Raw: raw.Draw(t, "b")}}
		var texts [][]byte
		for range rapid.IntRange(0, 4).Draw(t, "texts") {
			texts = append(texts, rapid.SliceOfN(rapid.SampledFrom([]byte("abcd")), 0, 60).Draw(t, "text"))
		}
		for n, got := range redact.Records(texts, records, 50) {
			for part := range bytes.SplitSeq(got, []byte("…")) {
				if !bytes.Contains(texts[n], part) {
					t.Fatalf("%q is not in %q", part, texts[n])
				}
				for i := 0; i+8 <= len(part); i++ {
					for _, r := range records {
						if bytes.Contains(r.Raw, part[i:i+8]) {
							t.Fatalf("%q of %q is left in %q", part[i:i+8], r.Raw, got)
						}
					}
				}
			}
		}
	})
}
