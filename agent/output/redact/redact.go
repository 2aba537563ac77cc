// Package redact keeps what a receiver quotes of records out of errors: they are
// logged, shown and kept, and record contents never are.
package redact

import "github.com/trailpoll/trailpoll/agent/record"

// window is how many bytes must agree with a record to be taken for a quotation
// of it.
const window = 8

// Records returns the texts without what they quote of the records, each of them
// cut to limit bytes first. It takes one pass over the records, however many
// texts there are. Neither is changed.
func Records(texts [][]byte, records []record.Record, limit int) [][]byte {
	quoted := make(map[[window]byte]bool)
	for _, t := range texts {
		t = t[:min(len(t), limit)]
		for i := 0; i+window <= len(t); i++ {
			quoted[[window]byte(t[i:])] = false
		}
	}
	if len(quoted) > 0 {
		for _, r := range records {
			for i := 0; i+window <= len(r.Raw); i++ {
				if _, found := quoted[[window]byte(r.Raw[i:])]; found {
					quoted[[window]byte(r.Raw[i:])] = true
				}
			}
		}
	}
	out := make([][]byte, len(texts))
	for n, t := range texts {
		out[n] = without(t[:min(len(t), limit)], quoted)
	}
	return out
}

// without returns text with an ellipsis for each run of windows that are quoted.
func without(text []byte, quoted map[[window]byte]bool) []byte {
	out := make([]byte, 0, len(text))
	hidden := 0 // up to here
	for i, c := range text {
		if i+window <= len(text) && quoted[[window]byte(text[i:])] {
			if i > hidden || i == 0 { // it does not follow on another one
				out = append(out, "…"...)
			}
			hidden = i + window
		}
		if i >= hidden {
			out = append(out, c)
		}
	}
	return out
}
