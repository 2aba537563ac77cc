package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// asProgram has this test's program be the benchmark itself, for its children.
const asProgram = "TRAILPOLL_BENCH_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func startS3(t *testing.T) *s3test.Server {
	t.Helper()
	s3, err := s3test.Start(s3test.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s3.Close() })
	return s3
}

// The bare loop is a yardstick only if it does the whole work.
func TestBareLoopDeliversEveryRecordOnceAndUnchanged(t *testing.T) {
	s3 := startS3(t)
	s3.CreateBucket(bucketName)
	var tally receivertest.Tally
	n := 0
	for o := range corpus.New(1).Objects(corpus.Traffic{Slots: 2}) {
		s3.Put(bucketName, o.Key, o.Body)
		for _, r := range o.Records {
			tally.Expect(r.Raw, r.EventID)
			n++
		}
	}
	to, err := receivertest.NewHTTP(receivertest.HTTPConfig{Take: func(raw []byte) { tally.Take(raw) }})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := runBare(t.Context(), []string{"-endpoint", s3.URL(), "-url", to.URL()}); err != nil {
		t.Fatal(err)
	}
	if r := tally.Result(); !r.Whole() || r.Received != n || n == 0 {
		t.Errorf("of %d records: %v", n, r)
	}
	if most := n/batchRecords + downloads + 1; to.Requests() > most {
		t.Errorf("%d requests for %d records, want at most %d", to.Requests(), n, most)
	}
}

func TestBareLoopStopsAtTheFirstError(t *testing.T) {
	s3 := startS3(t)
	s3.Put(bucketName, "AWSLogs/not-gzip", []byte("hello"))
	err := runBare(t.Context(), []string{"-endpoint", s3.URL(), "-url", "http://127.0.0.1:1/"})
	if err == nil || !strings.Contains(err.Error(), "inflating AWSLogs/not-gzip") {
		t.Errorf("got %v", err)
	}
}

func TestFill(t *testing.T) {
	for _, s := range []set{{objects: 30, records: 200}, {objects: 500, records: 10}, {objects: 1, records: 100, large: 200_000}} {
		s3 := startS3(t)
		got, err := fill(s3, s)
		if err != nil {
			t.Fatal(err)
		}
		if got.objects != s.objects || s3.Len(bucketName) != s.objects || got.records != s.total() {
			t.Errorf("%+v: %+v in %d keys", s, got, s3.Len(bucketName))
		}
		mean := float64(got.inflated) / float64(got.records)
		if s.large == 0 && (mean < 0.98*meanRecord || mean > 1.05*meanRecord) {
			t.Errorf("%+v: records of %.0f bytes, want about %d", s, mean, meanRecord)
		}
	}
}

func TestConfigurationIsValid(t *testing.T) {
	st, err := newStage()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, w := range slices.Concat(works(), waits()) {
		path, err := configure(t.TempDir(), "32MiB", st, &w)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := config.Load(path)
		if err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		if len(c.Outputs) != len(w.outputs) || c.Agent.Downloads != cmp.Or(w.downloads, downloads) {
			t.Errorf("%s: %d outputs, %d downloads", w.name, len(c.Outputs), c.Agent.Downloads)
		}
	}
}

// The whole, with very little work: the real agent, children and all.
func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the agent")
	}
	dir := t.TempDir()
	t.Setenv(asProgram, "1")
	var table, progress bytes.Buffer
	file := filepath.Join(dir, "bench.json")
	if code := run([]string{"-n", "2", "-install=false", "-scale", "0.002", "-json", file, "-svg", file + ".svg"}, &table, &progress); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &progress)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Works) != len(works()) {
		t.Fatalf("%d works in the report, want %d", len(r.Works), len(works()))
	}
	for _, m := range r.Works {
		if len(m.Pairs) != 2 || m.Ratio.Median <= 0 || m.Agent.Gets < m.Objects || m.Bare.Gets != m.Objects || m.Agent.Lists < 1 {
			t.Errorf("%+v", m)
		}
		if !strings.Contains(table.String(), m.Name) {
			t.Errorf("the table lacks %q:\n%s", m.Name, &table)
		}
	}

	if share, ok := r.rulesShare(); !ok || share >= 1 || !strings.Contains(table.String(), "Ten filter rules take") {
		t.Errorf("no share of the filters: %v, %v", share, ok)
	}
	if len(r.Waits) != len(waits()) || len(r.Growth) != len(growings()) || len(r.Works[0].Others) == 0 {
		t.Errorf("%d waits, %d growths, %d others", len(r.Waits), len(r.Growth), len(r.Works[0].Others))
	}
	if svg, err := os.ReadFile(file + ".svg"); err != nil || xml.Unmarshal(svg, new(struct{})) != nil || !bytes.Contains(svg, []byte("bare loop")) {
		t.Errorf("no chart: %v\n%s", err, svg)
	}

	if code := run([]string{"profile", "-dir", dir, "-scale", "0.002", "-only", "syslog|two"}, &table, &progress); code != 0 {
		t.Fatalf("profile: exit code %d\n%s", code, &progress)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*.cpu.pprof")); len(found) != 2 {
		t.Errorf("%d CPU profiles, want 2", len(found))
	}
}

// A run that loses a record is no measurement.
func TestReceiverCheck(t *testing.T) {
	to, err := newReceiver()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	to.records.Store(9)
	if to.check(9) != nil || to.check(10) == nil {
		t.Error("the count is not compared")
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{5, 1, 3}, spread{3, 1, 5}},
		{[]float64{4, 1, 2, 9}, spread{3, 1, 9}},
	} {
		if got := spreadOf(c.in); got != c.want {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}

func TestRunChildSaysWhatTheChildSaid(t *testing.T) {
	t.Setenv(asProgram, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = runChild(t.Context(), self, []string{bareCommand, "-endpoint", "http://127.0.0.1:1", "-url", "http://127.0.0.1:1"})
	if err == nil || !strings.Contains(err.Error(), "listing") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := runChild(ctx, self, []string{bareCommand}); err == nil {
		t.Error("a run that was cut off counts")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-n", "0"}, {"-scale", "0"}, {"-only", "("}, {"-only", "no such work"}, {"extra"}, {"-unknown"}, {"profile", "-n", "1"}} {
		var out bytes.Buffer
		if code := run(args, &out, &out); code != 2 || out.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, &out)
		}
	}
}
