package corpus

import (
	"io"
	"iter"

	"github.com/klauspost/compress/gzip"
)

// Large is one object of any size, made as it is written: neither the object
// nor its records are ever held in memory.
type Large struct {
	seed    *Corpus
	records int
	size    int
}

// Large returns an object of so many records that inflates to about size bytes
// (never to less than a few hundred bytes a record).
func (c *Corpus) Large(records, size int) Large { return Large{seed: c, records: records, size: size} }

// Object returns the object's key and place under the layout, without Body and
// Records.
func (l Large) Object(layout Layout) Object {
	return l.seed.gen("large object", l.records).object(layout, Epoch)
}

// Records returns the records that must be delivered. Raw is valid until the
// next one is asked for.
func (l Large) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		g := l.seed.gen("large", l.records)
		each := l.size/max(l.records, 1) - 1 // less the comma
		var buf []byte
		for n := range l.records {
			var r Record
			buf, r = g.shape(buf[:0], g.eventTime(Epoch),
				`{"eventVersion":"1.11","userIdentity":`+assumedRole+`,"eventTime":"`,
				`","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"<region>","sourceIPAddress":"<ip>","requestParameters":{"bucketName":"example-<word>","key":"<word>/<uuid>"},"responseElements":null,"requestID":"<request>","eventID":"`,
				`","readOnly":true,"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"<account>","eventCategory":"Data"`)
			if short := each - len(buf) - len(`,"additionalEventData":{"objects":[]}}`); short > 0 {
				buf = append(g.items(append(buf, `,"additionalEventData":{"objects":[`...), short), "]}"...)
			}
			buf = append(buf, '}')
			r.Index, r.Raw = n, buf
			if !yield(r) {
				return
			}
		}
	}
}

// WriteTo writes the object as stored, one gzip member, and returns how many
// bytes that were.
func (l Large) WriteTo(w io.Writer) (int64, error) {
	count := &counter{w: w}
	zw, err := gzip.NewWriterLevel(count, 6)
	if err != nil {
		return 0, err
	}
	if _, err := io.WriteString(zw, `{"Records":[`); err != nil {
		return count.n, err
	}
	for r := range l.Records() {
		if r.Index > 0 {
			if _, err := zw.Write([]byte{','}); err != nil {
				return count.n, err
			}
		}
		if _, err := zw.Write(r.Raw); err != nil {
			return count.n, err
		}
	}
	if _, err := io.WriteString(zw, "]}"); err != nil {
		return count.n, err
	}
	err = zw.Close()
	return count.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
