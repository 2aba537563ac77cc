package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

const (
	bucketName = "bench-cloudtrail-logs"
	// meanRecord is the size of a record in the middle of what published logs
	// show, in bytes.
	meanRecord = 1460
	// contents is how many records are made at most: more objects than that
	// allows share their contents, which neither program can tell.
	contents = 60_000
	// slot is the grid of stamps, slotFiles how many files a stream has in it.
	slot      = 5 * time.Minute
	slotFiles = 4
)

// stored is what fill put into the bucket.
type stored struct {
	objects, records int
	inflated         int64 // bytes of all records
	stored           int64 // bytes of all objects, as stored
	keys             []string
}

// fill puts a set into the bucket: two accounts, two regions, stamps that end
// an hour ago.
func fill(s3 *s3test.Server, s set) (stored, error) {
	s3.CreateBucket(bucketName)
	if s.large > 0 {
		return fillLarge(s3, s)
	}
	bodies, sizes, err := makeBodies(s)
	if err != nil {
		return stored{}, err
	}
	streams := [][2]string{}
	for a := range 2 {
		for _, region := range corpus.Regions()[:2] {
			streams = append(streams, [2]string{corpus.Account(a), region})
		}
	}
	slots := s.objects/len(streams)/slotFiles + 1
	from := time.Now().UTC().Add(-time.Hour - time.Duration(slots)*slot).Truncate(slot)
	out := stored{objects: s.objects, records: s.total()}
	for i := range s.objects {
		stream, nth := streams[i%len(streams)], i/len(streams)
		stamp := from.Add(time.Duration(nth/slotFiles) * slot)
		key := logKey(stream[0], stream[1], stamp, i)
		out.keys = append(out.keys, key)
		b := i % len(bodies)
		s3.PutObject(bucketName, key, s3test.Object{Body: bodies[b], LastModified: stamp.Add(3 * time.Minute)})
		out.inflated += sizes[b]
		out.stored += int64(len(bodies[b]))
	}
	return out, nil
}

// logKey is the key of a log file; n makes it the only one.
func logKey(account, region string, stamp time.Time, n int) string {
	return fmt.Sprintf("AWSLogs/%s/CloudTrail/%s/%s/%[1]s_CloudTrail_%[2]s_%[4]s_%016[5]X.json.gz", account, region,
		stamp.Format("2006/01/02"), stamp.Format("20060102T1504Z"), uint64(n)*0x9e3779b97f4a7c15)
}

// makeBodies makes the different contents of a set. Records are the corpus's,
// some of the short ones left out so that the mean is right.
func makeBodies(s set) (bodies [][]byte, sizes []int64, err error) {
	n := max(1, min(s.objects, contents/s.records))
	var raw, packed bytes.Buffer
	zw, err := gzip.NewWriterLevel(io.Discard, 6)
	if err != nil {
		return nil, nil, err
	}
	records, sum, total, size := 0, 0, 0, int64(0)
	for o := range corpus.New(1).Uniform(3*n, s.records) {
		for _, r := range o.Records {
			if sum < meanRecord*total && len(r.Raw) < meanRecord {
				continue
			}
			sum, total = sum+len(r.Raw), total+1
			if records == 0 {
				raw.WriteString(`{"Records":[`)
			} else {
				raw.WriteByte(',')
			}
			raw.Write(r.Raw)
			size += int64(len(r.Raw))
			if records++; records < s.records {
				continue
			}
			raw.WriteString("]}")
			zw.Reset(&packed)
			if _, err := zw.Write(raw.Bytes()); err != nil {
				return nil, nil, err
			}
			if err := zw.Close(); err != nil {
				return nil, nil, err
			}
			bodies, sizes = append(bodies, slices.Clone(packed.Bytes())), append(sizes, size)
			raw.Reset()
			packed.Reset()
			records, size = 0, 0
			if len(bodies) == n {
				return bodies, sizes, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("making %d contents: the corpus gave %d", n, len(bodies))
}

func fillLarge(s3 *s3test.Server, s set) (stored, error) {
	l := corpus.New(1).Large(s.records, s.large)
	var b bytes.Buffer
	if _, err := l.WriteTo(&b); err != nil {
		return stored{}, fmt.Errorf("making a large object: %w", err)
	}
	out := stored{objects: 1, records: s.records, stored: int64(b.Len())}
	for r := range l.Records() {
		out.inflated += int64(len(r.Raw))
	}
	s3.PutObject(bucketName, l.Object(corpus.Layouts()[0]).Key, s3test.Object{Body: b.Bytes()})
	return out, nil
}
