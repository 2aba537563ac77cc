package cloudtrail

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// TestInvariant7_Corpus reads every odd, bad and ordinary object of the corpus
// in every layout: what must be delivered comes byte for byte, the rest is
// named with its reason and, where it is one record's, its number.
func TestInvariant7_Corpus(t *testing.T) {
	c := corpus.New(11)
	for _, l := range corpus.Layouts() {
		for o := range c.Odd(l, corpus.Epoch) {
			if e := readCorpus(t, &o); e != nil {
				t.Errorf("%s: %v", o.Name, e)
			}
		}
		for o := range c.Objects(corpus.Traffic{Layout: l, Clutter: true, Slots: 1}) {
			if _, class := parse(o.Prefix, o.Key); (class == Log) != (o.Kind == corpus.Log) {
				t.Errorf("%s is taken for %v", o.Key, class)
			}
			if o.Kind == corpus.Log {
				if e := readCorpus(t, &o); e != nil {
					t.Errorf("%s: %v", o.Key, e)
				}
			}
		}
		for _, b := range c.Bad(l, corpus.Epoch) {
			e := readCorpus(t, &b.Object)
			if e == nil || e.Reason != b.Reason || e.RecordOnly != b.RecordOnly || b.Record >= 0 && e.Record != b.Record {
				t.Errorf("%s: %+v, wanted %s at record %d", b.Name, e, b.Reason, b.Record)
			}
		}
	}
}

// readCorpus reads o, compares what comes with what must, and returns the first
// fault.
func readCorpus(t *testing.T, o *corpus.Object) (first *Error) {
	t.Helper()
	k, class := parse(o.Prefix, o.Key)
	s := k.Stream
	if class != Log || !k.Stamp.Equal(o.Stamp) || s.Account != o.Account || s.Organization != o.Organization || s.LogType != o.LogType || s.Region != o.Region {
		t.Errorf("%s is read as %v %+v", o.Key, class, k)
	}
	var inflater Inflater
	data, err := inflater.Inflate(nil, bytes.NewReader(o.Body), Limits{MaxRecord: corpus.MaxRecord, Hold: 256 << 20, Stored: int64(len(o.Body))})
	if err != nil {
		if !errors.As(err, &first) {
			t.Fatal(err)
		}
		if len(o.Records) > 0 {
			t.Errorf("%s: nothing of it is delivered: %v", o.Name, err)
		}
		return first
	}
	var split Splitter
	split.Reset(data, corpus.MaxRecord)
	want := o.Records
	for {
		r, err := split.Next()
		var e *Error
		switch {
		case errors.Is(err, io.EOF):
			if len(want) > 0 {
				t.Errorf("%s: %d records are missing, the first is %d", o.Name, len(want), want[0].Index)
			}
			return first
		case errors.As(err, &e):
			if first == nil {
				first = e
			}
			if !e.RecordOnly {
				if len(want) > 0 {
					t.Errorf("%s: %d records are missing, the first is %d", o.Name, len(want), want[0].Index)
				}
				return first
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		if len(want) == 0 {
			t.Fatalf("%s: record %d comes that must not", o.Name, r.Index)
		}
		w := &want[0]
		want = want[1:]
		if r.Index != w.Index || !bytes.Equal(r.Raw, w.Raw) || string(r.EventID) != w.EventID || string(r.EventTime) != w.EventTime {
			t.Errorf("%s record %d: %.150q, wanted %d %.150q", o.Name, r.Index, r.Raw, w.Index, w.Raw)
		}
	}
}
