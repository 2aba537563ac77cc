package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/agenttest"
	"github.com/trailpoll/trailpoll/agent/progress"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/checkpoint"
	"github.com/trailpoll/trailpoll/checkpoint/checkpointtest"
)

// store is a checkpoint as the tests use it.
type store interface {
	agent.Checkpoint
	agent.ParkedBook
	agent.Keeper
	agent.ResyncBook
	Close() error
}

// world is what an agent lives in: one bucket, outputs, a state directory. Its
// tests run in a synctest bubble, so that months pass in no time.
type world struct {
	t       *testing.T
	bucket  *agenttest.Bucket
	outputs map[string]*agenttest.Output
	streams map[string]*agenttest.Stream // outputs that confirm later
	dir     string
	want    map[string]string // raw bytes of every record written, by Name
	log     io.Writer
	tune    func(*agent.Config)
	wrap    func(store) agent.Checkpoint
	disk    bool // keep the state in a file, not in memory
	memory  *checkpointtest.Memory
	serial  int
	bites   bool         // the test wants objects to be lost
	agent   *agent.Agent // that runs, in during
}

func newWorld(t *testing.T, outputs ...string) *world {
	w := &world{
		t: t, bucket: new(agenttest.Bucket), outputs: make(map[string]*agenttest.Output),
		dir: t.TempDir(), memory: checkpointtest.NewMemory(), want: make(map[string]string), log: io.Discard,
	}
	if os.Getenv("TRAILPOLL_TEST_LOG") != "" {
		w.log = os.Stderr
	}
	if len(outputs) == 0 {
		outputs = []string{"siem"}
	}
	for _, o := range outputs {
		w.outputs[o] = new(agenttest.Output)
	}
	// Whatever a test is about: no watermark may have a hole in the end.
	t.Cleanup(func() {
		if !w.bites {
			w.checkWatermarks()
		}
	})
	return w
}

const bucketName = "logs"

func (w *world) config(s store) agent.Config {
	cfg := agent.Config{
		Sources: []agent.SourceConfig{{
			Name: "trail", Bucket: bucketName, Store: w.bucket,
			Start:   func(now time.Time) time.Time { return now.Add(-24 * time.Hour) },
			Refresh: time.Minute, IdleRefresh: 10 * time.Minute, LookBack: time.Hour,
			LateHorizon: 30 * 24 * time.Hour, Discovery: 15 * time.Minute,
		}},
		Checkpoint: s, Log: zerolog.New(zerolog.SyncWriter(w.log)),
		Memory: 64 << 20, MaxRecord: 1 << 20, DrainTimeout: 20 * time.Second, Downloads: 8,
	}
	for name, o := range w.outputs {
		cfg.Outputs = append(cfg.Outputs, agent.OutputConfig{
			Name: name, Output: w.as(name, o), BatchRecords: 100, BatchBytes: 1 << 20, BatchWait: time.Second, Connections: 2,
		})
	}
	if w.wrap != nil {
		cfg.Checkpoint = w.wrap(s)
	}
	if w.tune != nil {
		w.tune(&cfg)
	}
	return cfg
}

// as returns what stands before an output's receiver.
func (w *world) as(name string, o *agenttest.Output) agent.Output {
	if s := w.streams[name]; s != nil {
		return s
	}
	return o
}

func (w *world) open() store {
	w.t.Helper()
	if !w.disk {
		return w.memory
	}
	store, _, err := checkpoint.Open(w.dir, checkpoint.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	return store
}

// during runs an agent while f goes on, and stops it in order when f returns.
func (w *world) during(f func()) agent.Result {
	w.t.Helper()
	return w.working(func(*agent.Agent) { f() })
}

// working is during, with an f that asks the agent things.
func (w *world) working(f func(*agent.Agent)) agent.Result {
	w.t.Helper()
	store := w.open()
	defer store.Close()
	a, err := agent.New(w.config(store))
	if err != nil {
		w.t.Fatal(err)
	}
	w.agent = a
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	type ended struct {
		agent.Result
		error
	}
	done := make(chan ended, 1)
	go func() {
		r, err := a.Run(ctx, context.Background())
		done <- ended{r, err}
	}()
	f(a)
	stop()
	e := <-done
	if e.error != nil {
		w.t.Errorf("Run: %v", e.error)
	}
	return e.Result
}

// once runs an agent until all is done.
func (w *world) once() agent.Result {
	w.t.Helper()
	return w.toItsEnd(func(c *agent.Config) { c.Once = true })
}

// finish is once, and nothing may stay unfinished.
func (w *world) finish() {
	w.t.Helper()
	if r := w.once(); len(r.Unfinished) > 0 {
		w.t.Errorf("unfinished: %v", r.Unfinished)
	}
}

// toItsEnd runs an agent that ends by itself.
func (w *world) toItsEnd(tune func(*agent.Config)) agent.Result {
	w.t.Helper()
	store := w.open()
	defer store.Close()
	cfg := w.config(store)
	tune(&cfg)
	a, err := agent.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := a.Run(context.Background(), context.Background())
	if err != nil {
		w.t.Errorf("Run: %v", err)
	}
	return r
}

// stream is a stream of the tests.
func stream(n int) progress.Stream {
	return progress.Stream{Account: fmt.Sprintf("%012d", 111122220000+n), LogType: "CloudTrail", Region: "eu-central-1"}
}

// key returns the key of an object of a stream with that stamp.
func (w *world) key(s progress.Stream, stamp time.Time) string {
	w.serial++
	stamp = stamp.UTC()
	return fmt.Sprintf("AWSLogs/%s/%s/%s/%s/%s_%s_%s_%s_%016x.json.gz", s.Account, s.LogType, s.Region,
		stamp.Format("2006/01/02"), s.Account, s.LogType, s.Region, stamp.Format("20060102T1504Z"), scramble(w.serial))
}

// scramble makes names that are not in the order in which they were made.
func scramble(n int) uint64 { return uint64(n) * 0x9E3779B97F4A7C15 }

// put writes an object of n records with that stamp, as of now.
func (w *world) put(s progress.Stream, stamp time.Time, n int) (key string) {
	key = w.key(s, stamp)
	w.bucket.Put(key, w.object(key, n))
	return key
}

func (w *world) object(key string, n int) []byte {
	var b strings.Builder
	b.WriteString(`{"Records":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		raw := fmt.Sprintf(`{"eventVersion":"1.11","eventTime":"2026-11-20T18:15:00Z","eventID":"%s#%d","n":0.0}`, key[len(key)-24:len(key)-8], i)
		b.WriteString(raw)
		w.want[fmt.Sprintf("%s/%s#%d", bucketName, key, i)] = raw
	}
	b.WriteString(`]}`)
	return zip(b.String())
}

// zippers are kept: making one costs far more than using it.
var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func zip(s string) []byte {
	var b bytes.Buffer
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.Bytes()
}

func unzip(t *testing.T, b []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	s, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(s)
}

// complete checks that an output has taken every record written, unchanged,
// and each at most as often as repeats allows beyond once in all.
func (w *world) complete(output string, repeats int) {
	w.t.Helper()
	o := w.outputs[output]
	taken := o.Taken()
	missing, again := 0, 0
	for name, raw := range w.want {
		n := taken[name]
		if n == 0 {
			if missing++; missing <= 5 {
				w.t.Errorf("%s: lost %s", output, name)
			}
			continue
		}
		again += n - 1
		if got, _ := o.Raw(name); got != raw {
			w.t.Errorf("%s: altered %s: %q, want %q", output, name, got, raw)
		}
		delete(taken, name)
	}
	for name := range taken {
		w.t.Errorf("%s: took %s, which was not written", output, name)
	}
	if missing > 5 {
		w.t.Errorf("%s: lost %d in all of %d", output, missing, len(w.want))
	}
	if again > repeats {
		w.t.Errorf("%s: %d records repeated, at most %d allowed", output, again, repeats)
	}
	for _, f := range o.Faults() {
		w.t.Errorf("%s: %s", output, f)
	}
}

// parked returns what is parked.
func (w *world) parked() (all []progress.Entry) {
	w.t.Helper()
	store := w.open()
	defer store.Close()
	if err := store.Parked(func(e progress.Entry) bool {
		all = append(all, e)
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// parkReasons returns how many entries there are of each reason.
func parkReasons(all []progress.Entry) map[record.Reason]int {
	n := make(map[record.Reason]int)
	for _, e := range all {
		n[e.Reason]++
	}
	return n
}
