package corpus

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/record"
)

// Bad is an object with something wrong in it. Object.Records are those that
// must be delivered nevertheless, with their own numbers.
type Bad struct {
	Object
	// Reason is why the object, or the one record, must be parked.
	Reason record.Reason
	// Record is the number of the record at which it happens; -1 if the fault
	// is the object's, where any number that is named says how far a reader came.
	Record int
	// RecordOnly says that just this record is bad and those behind it go on.
	RecordOnly bool
}

// Bad returns one object for each thing that can be wrong with a log file.
// Their stamps begin at at, five minutes apart.
func (c *Corpus) Bad(l Layout, at time.Time) []Bad {
	var all []Bad
	k := &kit{g: c.gen("bad "+l.Name, int(at.Unix())), l: l, stamp: at.UTC().Truncate(slot)}

	// damaged makes a case from a whole object of 60 records by changing its
	// stored bytes. Nothing of it may be delivered.
	damaged := func(name string, reason record.Reason, change func(body, raw []byte) []byte) {
		o := k.object(name)
		f := begin()
		f.fill(k.g, 60, k.stamp)
		raw, _ := f.end()
		o.Body = change(k.gz(raw), raw)
		all = append(all, Bad{Object: o, Reason: reason, Record: -1})
	}
	damaged("cut in the middle", record.Truncated, func(b, _ []byte) []byte { return b[:len(b)/2] })
	damaged("cut in the gzip trailer", record.Truncated, func(b, _ []byte) []byte { return b[:len(b)-3] })
	damaged("cut in the gzip header", record.Truncated, func(b, _ []byte) []byte { return b[:7] })
	damaged("plain JSON", record.Corrupt, func(_, raw []byte) []byte { return raw })
	damaged("an HTML page", record.Corrupt, func(_, _ []byte) []byte { return []byte("<!doctype html><title>Sign in</title>") })
	damaged("flipped bit in the data", record.Corrupt, flipInData)
	damaged("flipped bit in the CRC", record.Corrupt, func(b, _ []byte) []byte { b[len(b)-8] ^= 0x10; return b })
	damaged("flipped bit in the length", record.Corrupt, func(b, _ []byte) []byte { b[len(b)-1] ^= 0x01; return b })
	damaged("second member", record.TrailingData, func(b, _ []byte) []byte {
		return append(b, k.gz([]byte(`{"Records":[{"eventID":"smuggled"}]}`))...)
	})
	damaged("empty second member", record.TrailingData, func(b, _ []byte) []byte { return append(b, k.gz(nil)...) })
	damaged("trailing zeros", record.TrailingData, func(b, _ []byte) []byte { return append(b, make([]byte, 512)...) })
	damaged("trailing text", record.TrailingData, func(b, _ []byte) []byte { return append(b, "\n"...) })
	damaged("bomb", record.Bomb, func(_, _ []byte) []byte { return bomb() })

	// noLog makes a case from content that is no log file.
	noLog := func(name, raw string) {
		o := k.object(name)
		o.Body = k.gz([]byte(raw))
		all = append(all, Bad{Object: o, Reason: record.NotJSON, Record: -1})
	}
	noLog("an object without records", `{"message":"no records here"}`)
	noLog("a string", `"Records"`)
	noLog("text", `this is no JSON`)

	// broken makes a case from 60 records by changing record 50. Those before
	// it are delivered, and those behind it if only this record is bad.
	broken := func(name string, reason record.Reason, recordOnly bool, change func(raw []byte, from, to int) []byte) {
		o := k.object(name)
		f := begin()
		f.fill(k.g, 60, k.stamp)
		raw, recs := f.end()
		o.Body = k.gz(change(slices.Clone(raw), f.from[50], f.to[50]))
		if recordOnly {
			o.Records = slices.Delete(recs, 50, 51)
		} else {
			o.Records = recs[:50]
		}
		all = append(all, Bad{Object: o, Reason: reason, Record: 50, RecordOnly: recordOnly})
	}
	put := func(text string) func([]byte, int, int) []byte {
		return func(raw []byte, from, to int) []byte { return slices.Replace(raw, from, to, []byte(text)...) }
	}
	broken("JSON ends in record 50", record.NotJSON, false, func(raw []byte, from, to int) []byte { return raw[:(from+to)/2] })
	broken("no value at record 50", record.NotJSON, false, put(`@@@`))
	// A quote too many: from here on nobody can tell what is inside a string, so
	// nothing behind it may pass for a record.
	broken("stray quote in record 50", record.NotJSON, false, put(`{"eventID":"stray""quote"}`))
	broken("string without an end at record 50", record.NotJSON, false, func(raw []byte, from, _ int) []byte {
		return append(raw[:from], `{"eventID":"no end`...)
	})
	broken("bad literal in record 50", record.UnreadableRecord, true, put(`{"eventID":"bad-literal","readOnly":tru}`))
	broken("missing value in record 50", record.UnreadableRecord, true, put(`{"eventID":"missing-value","readOnly":}`))
	broken("leading zero in record 50", record.UnreadableRecord, true, put(`{"eventID":"leading-zero","n":007}`))
	broken("control character in record 50", record.UnreadableRecord, true, put("{\"eventID\":\"control\x01character\"}"))
	broken("line break in a string of record 50", record.UnreadableRecord, true, put("{\"eventID\":\"line\nbreak\"}"))
	broken("invalid UTF-8 in record 50", record.UnreadableRecord, true, put("{\"eventID\":\"invalid\",\"userAgent\":\"\xff\xfe\"}"))
	broken("overlong UTF-8 in record 50", record.UnreadableRecord, true, put("{\"eventID\":\"overlong\",\"userAgent\":\"\xc0\xaf\"}"))
	broken("surrogate in UTF-8 in record 50", record.UnreadableRecord, true, put("{\"eventID\":\"surrogate\",\"userAgent\":\"\xed\xa0\x80\"}"))
	broken("record 50 over 1 MiB", record.TooLarge, true, func(raw []byte, from, to int) []byte {
		long, _ := k.long(nil, MaxRecord+1)
		return slices.Replace(raw, from, to, long...)
	})
	return all
}

// flipInData flips one bit of the compressed data, such that inflating gives
// as many bytes as before, others: only the CRC can tell.
func flipInData(body, raw []byte) []byte {
	for i := len(body) / 2; i < len(body)-8; i++ {
		for bit := range 8 {
			body[i] ^= 1 << bit
			got, err := inflate(body)
			if err == gzip.ErrChecksum && len(got) == len(raw) {
				return body
			}
			body[i] ^= 1 << bit
		}
	}
	panic("corpus: no bit to flip")
}

// inflate returns what a body inflates to, as far as that goes.
func inflate(body []byte) ([]byte, error) {
	zr, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	zr.Multistream(false)
	return io.ReadAll(zr)
}

// bomb is a valid envelope that inflates to 64 MiB from 64 KiB, about a
// thousand times its size.
func bomb() []byte {
	var b bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	_, _ = io.WriteString(zw, `{"Records":[{"eventID":"before"}`)
	space := []byte(strings.Repeat(" ", 1<<20))
	for range 64 {
		_, _ = zw.Write(space)
	}
	_, _ = io.WriteString(zw, `,{"eventID":"behind"}]}`)
	_ = zw.Close()
	return b.Bytes()
}
