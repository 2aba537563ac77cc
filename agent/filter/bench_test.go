package filter

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

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

// mill does with an object what is done with it anyway: it inflates and splits
// it, and deflates the records again as an output does. The whole of an agent
// does more.
type mill struct {
	object corpus.Object
	size   int // inflated
	place  *record.Object
	in     cloudtrail.Inflater
	split  cloudtrail.Splitter
	out    *gzip.Writer
	buf    []byte
}

func newMill(b *testing.B) *mill {
	m := &mill{}
	for o := range corpus.New(1).Uniform(1, 500) {
		m.object = o
	}
	for i := range m.object.Records {
		m.size += len(m.object.Records[i].Raw)
	}
	m.place = &record.Object{Bucket: "acme-logs", Key: m.object.Key}
	m.out, _ = gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	m.inflate(b)
	return m
}

func (m *mill) inflate(b *testing.B) {
	var err error
	m.buf, err = m.in.Inflate(m.buf[:0], bytes.NewReader(m.object.Body), cloudtrail.Limits{
		MaxRecord: 1 << 20, Hold: 16 << 20, Stored: int64(len(m.object.Body)), Expect: 2 * m.size,
	})
	if err != nil {
		b.Fatal(err)
	}
}

// run works on the object once; f may be nil. All records are deflated, so that
// with and without a filter the same is done.
func (m *mill) run(b *testing.B, whole bool, f *Filter) {
	if whole {
		m.inflate(b)
		m.out.Reset(io.Discard)
	}
	m.split.Reset(m.buf, 1<<20)
	for {
		r, err := m.split.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		r.Object = m.place
		if f != nil {
			f.Keep(&r)
		}
		if whole {
			_, _ = m.out.Write(r.Raw)
		}
	}
	if whole {
		_ = m.out.Close()
	}
}

// BenchmarkTenRules shows what ten rules over five members cost, beside
// splitting alone, and as a share of the throughput of the whole mill: 40 % is
// what they may cost. With and without take turns, so that whatever else the
// machine does hits both.
func BenchmarkTenRules(b *testing.B) {
	f := compile(b, tenRules...)
	for _, c := range []struct {
		name  string
		whole bool
	}{{"split", false}, {"whole", true}} {
		b.Run(c.name, func(b *testing.B) {
			m := newMill(b)
			b.SetBytes(int64(2 * m.size))
			b.ReportAllocs()
			var without, with time.Duration
			n := 0
			for b.Loop() {
				start := time.Now()
				m.run(b, c.whole, nil)
				middle := time.Now()
				m.run(b, c.whole, f)
				without += middle.Sub(start)
				with += time.Since(middle)
				n += len(m.object.Records)
			}
			b.ReportMetric(float64(without.Nanoseconds())/float64(n), "ns/record-without")
			b.ReportMetric(float64(with.Nanoseconds())/float64(n), "ns/record-with")
			b.ReportMetric(100*(1-without.Seconds()/with.Seconds()), "%-throughput-lost")
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
