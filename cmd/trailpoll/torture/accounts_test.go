//go:build linux

package torture

import (
	"testing"
	"time"
)

// What the campaign finds is found by the journal: so it must account for what
// is allowed, and for nothing else.
func TestJournal(t *testing.T) {
	a, b := []byte(`{"eventID":"a"}`), []byte(`{"eventID":"b"}`)
	both := [][]byte{a, b}
	expect := func() *expectations {
		e := newExpectations()
		e.must[digestOf(a)], e.must[digestOf(b)] = 1, 1
		return e
	}
	for _, tt := range []struct {
		name string
		play func(j *journal, e *expectations)
		want verdict
	}{
		{"once", func(j *journal, _ *expectations) { j.take(1, 0, false, both) }, verdict{}},
		{"lost", func(j *journal, _ *expectations) { j.take(1, 0, false, both[:1]) }, verdict{lost: 1}},
		{"altered", func(j *journal, _ *expectations) {
			j.take(1, 0, false, append(both, []byte(`{"eventID": "b"}`)))
		}, verdict{altered: 1}},
		{"written twice", func(j *journal, e *expectations) {
			e.must[digestOf(a)] = 2
			j.take(1, 0, false, both)
			j.take(1, 0, false, both[:1])
		}, verdict{}},
		{"repeated for no reason", func(j *journal, _ *expectations) {
			j.take(1, 0, false, both)
			j.take(2, 0, false, both)
		}, verdict{repeated: 2, unexcused: 2}},
		{"after a lost answer", func(j *journal, _ *expectations) {
			j.take(1, 0, true, both)
			j.take(1, 0, false, both)
		}, verdict{repeated: 2, byLost: 2}},
		{"twice after one lost answer", func(j *journal, _ *expectations) {
			j.take(1, 0, true, both)
			j.take(1, 0, false, both)
			j.take(1, 0, false, both[:1])
		}, verdict{repeated: 3, byLost: 2, unexcused: 1}},
		{"the last delivery excuses nothing", func(j *journal, _ *expectations) {
			j.take(1, 0, false, both)
			j.take(1, 0, true, both)
		}, verdict{repeated: 2, unexcused: 2}},
		{"after a kill", func(j *journal, _ *expectations) {
			j.take(1, 0, false, both)
			j.kill(1)
			j.take(2, 0, false, both)
		}, verdict{repeated: 2, byKill: 2, most: 2, worst: 1}},
		{"after another run's kill", func(j *journal, _ *expectations) {
			j.take(1, 0, false, both)
			j.kill(2)
			j.take(3, 0, false, both[:1])
		}, verdict{repeated: 1, unexcused: 1}},
		{"after damage", func(j *journal, _ *expectations) {
			j.take(1, 0, false, both)
			j.forget(1)
			j.take(2, 0, false, both)
			j.take(3, 0, false, both[:1])
		}, verdict{repeated: 3, byDamage: 2, unexcused: 1}},
		{"an answer due when the connection broke", func(j *journal, _ *expectations) {
			j.take(1, time.Second, false, both)
			j.lose(time.Now(), time.Now())
			j.take(1, 0, false, both)
		}, verdict{repeated: 2, byLost: 2}},
		{"an answer given long before", func(j *journal, _ *expectations) {
			j.take(1, 0, false, both)
			later := time.Now().Add(time.Second)
			j.lose(later, later)
			j.take(1, 0, false, both[:1])
		}, verdict{repeated: 1, unexcused: 1}},
		{"written over, one half of each", func(j *journal, e *expectations) {
			j.take(1, 0, false, both)
			c, d := []byte(`{"eventID":"c"}`), []byte(`{"eventID":"d"}`)
			old, now := []digest{digestOf(c), digestOf([]byte("1"))}, []digest{digestOf(d), digestOf([]byte("2"))}
			e.overwrite("key", old, now)
			j.take(1, 0, false, [][]byte{c, d})
		}, verdict{halves: 1}},
		{"written over, one half of the second after the first", func(j *journal, e *expectations) {
			j.take(1, 0, false, both)
			c, d := []byte(`{"eventID":"c"}`), []byte(`{"eventID":"d"}`)
			e.overwrite("key", []digest{digestOf(c)}, []digest{digestOf(d), digestOf([]byte("2"))})
			j.take(1, 0, false, [][]byte{c, d})
		}, verdict{halves: 1}},
		{"written over, the second after one half of the first", func(j *journal, e *expectations) {
			j.take(1, 0, false, both)
			c, d := []byte(`{"eventID":"c"}`), []byte(`{"eventID":"d"}`)
			e.overwrite("key", []digest{digestOf(c), digestOf([]byte("1"))}, []digest{digestOf(d)})
			j.take(1, 0, false, [][]byte{c, d})
		}, verdict{}},
		{"written over when the first was settled", func(j *journal, e *expectations) {
			j.take(1, 0, false, both)
			c, d := []byte(`{"eventID":"c"}`), []byte(`{"eventID":"d"}`)
			e.overwrite("key", []digest{digestOf(c)}, []digest{digestOf(d)})
			j.take(1, 0, false, [][]byte{c})
		}, verdict{}},
		{"written over, the second twice", func(j *journal, e *expectations) {
			j.take(1, 0, false, both)
			c, d := []byte(`{"eventID":"c"}`), []byte(`{"eventID":"d"}`)
			e.overwrite("key", []digest{digestOf(c)}, []digest{digestOf(d)})
			j.take(1, 0, false, [][]byte{d})
			j.take(1, 0, false, [][]byte{d})
		}, verdict{repeated: 1, unexcused: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, e := newJournal(), expect()
			tt.play(j, e)
			got := j.judge(e)
			got.missing, got.strange, got.written, got.received = nil, nil, 0, 0
			if got.String() != tt.want.String() {
				t.Errorf("%v, want %v", &got, &tt.want)
			}
		})
	}
}
