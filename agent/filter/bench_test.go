package filter

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// tenRules over five members; few records match one, so that most are asked
// all ten.
var tenRules = []Rule{
	{Keep, `userIdentity.type == "Root"`, ""},
	{Drop, `eventSource == "health.amazonaws.com" && readOnly == true`, ""},
	{Drop, `eventSource == "ce.amazonaws.com" && eventName startsWith "Get"`, ""},
	{Drop, `eventName in ["DescribeLogStreams", "DescribeLogGroups", "DescribeEventAggregates"]`, ""},
	{Keep, `errorCode == "NeverSeen"`, ""},
	{Drop, `readOnly == true && userIdentity.type == "Directory"`, ""},
	{Drop, `eventSource == "glue.amazonaws.com" && eventName startsWith "Batch"`, ""},
	{Keep, `errorCode startsWith "Client." && not readOnly`, ""},
	{Drop, `eventName matches "^(Poll|Heartbeat)" && readOnly == true`, ""},
	{Drop, `userIdentity.type == "AWSService" && eventName == "Decrypt"`, ""},
}

// BenchmarkTenRules shows what the rules cost beside the least that is done
// with a record anyway. work inflates and splits, and deflates again as an
// output does; the whole of an agent does more.
func BenchmarkTenRules(b *testing.B) {
	var object corpus.Object
	for o := range corpus.New(1).Uniform(1, 500) {
		object = o
	}
	zr, err := gzip.NewReader(bytes.NewReader(object.Body))
	if err != nil {
		b.Fatal(err)
	}
	data, err := io.ReadAll(zr)
	if err != nil {
		b.Fatal(err)
	}
	place := &record.Object{Bucket: "acme-logs", Key: object.Key}
	f := compile(b, tenRules...)
	for _, c := range []struct {
		name   string
		work   bool
		filter *Filter
	}{{"split", false, nil}, {"split-filter", false, f}, {"work", true, nil}, {"work-filter", true, f}} {
		b.Run(c.name, func(b *testing.B) {
			var s cloudtrail.Splitter
			var in cloudtrail.Inflater
			out, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
			buf := make([]byte, 0, 2*len(data))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				buf = append(buf[:0], data...)
				if c.work {
					var err error
					buf, err = in.Inflate(buf[:0], bytes.NewReader(object.Body), cloudtrail.Limits{MaxRecord: 1 << 20, Hold: 16 << 20, Stored: int64(len(object.Body)), Expect: len(data)})
					if err != nil {
						b.Fatal(err)
					}
					out.Reset(io.Discard)
				}
				s.Reset(buf, 1<<20)
				for {
					r, err := s.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					r.Object = place
					n++
					if c.filter != nil && !c.filter.Keep(&r) {
						continue
					}
					if c.work {
						_, _ = out.Write(r.Raw)
					}
				}
				if c.work {
					_ = out.Close()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
		})
	}
}

func TestTenRulesNameFiveMembers(t *testing.T) {
	f := compile(t, tenRules...)
	var paths []string
	for _, n := range f.look.names {
		if p := n.path[0]; n.node != nil && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	if len(f.rules) != 10 || len(paths) != 5 {
		t.Errorf("%d rules over %v", len(f.rules), paths)
	}
}
