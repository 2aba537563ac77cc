package https

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// most is the longest record that the real receivers are shown: the least that
// all of them are known to take.
const most = 64 << 10

// corpusBatches returns the records of the corpus, ordinary and odd, whose
// events are of the last hours, in batches of the usual size.
func corpusBatches() (batches []*record.Batch, records []record.Record) {
	c := corpus.New(7)
	b := &record.Batch{}
	add := func(o *corpus.Object) {
		of := &record.Object{
			Source: "org-trail", Labels: map[string]string{"env": "test"}, Bucket: "acme-cloudtrail-logs", Key: o.Key,
			Organization: o.Organization, Account: o.Account, Region: o.Region, LogType: o.LogType,
			Stamp: o.Stamp,
		}
		for _, r := range o.Records {
			if len(r.Raw) > most {
				continue
			}
			b.Add(record.Record{Object: of, Index: r.Index, Raw: r.Raw, EventID: []byte(r.EventID), EventTime: []byte(r.EventTime)})
			records = append(records, b.Records[len(b.Records)-1])
			if len(b.Records) == 1000 || b.Bytes > 1<<20 {
				batches, b = append(batches, b), &record.Batch{}
			}
		}
	}
	begin := time.Now().UTC().Add(-2 * time.Hour)
	for o := range c.Objects(corpus.Traffic{From: begin, Slots: 12, Clutter: true}) {
		add(&o)
	}
	for _, l := range corpus.Layouts() {
		for o := range c.Odd(l, begin) {
			add(&o)
		}
	}
	return append(batches, b), records
}

// need skips a test whose receiver is not installed; in CI it fails, unless the
// receiver is one that CI may do without.
func need(t *testing.T, err error, optional bool) {
	t.Helper()
	if errors.Is(err, receivertest.ErrNoProgram) && (optional || os.Getenv("CI") != "true") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// compare compares what was sent with what a receiver stored; so many more of
// them than were sent may be there.
func compare(t *testing.T, records []record.Record, more int, stored func(yield func(body, id string))) {
	t.Helper()
	var tally receivertest.Tally
	ids := map[string]int{}
	for i := range records {
		tally.Expect(records[i].Raw, string(records[i].EventID))
		ids[records[i].Identity()]++
	}
	stored(func(body, id string) {
		tally.Take([]byte(body))
		ids[id]--
	})
	result := tally.Result()
	t.Logf("%v", result)
	if result.Lost > 0 || result.Altered > 0 || result.Repeated > more {
		t.Errorf("%v", result)
	}
	for id, n := range ids {
		if n > 0 || -n > more {
			t.Fatalf("identity %.100q: %d too few", id, n)
		}
	}
}

func TestRealReceiver_Collector(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real collector: not with -short")
	}
	for _, compression := range []string{"gzip", "none"} {
		t.Run(compression, func(t *testing.T) {
			c, err := receivertest.StartCollector(t.TempDir())
			need(t, err, false)
			t.Cleanup(c.Kill)
			o := open(t, Config{URL: c.URL(), Format: OTLP, Compression: compression, Version: "test"})
			batches, records := corpusBatches()
			for _, b := range batches {
				if err := o.Send(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
			logs, err := c.Records()
			if err != nil {
				t.Fatal(err)
			}
			compare(t, records, 0, func(yield func(body, id string)) {
				for _, l := range logs {
					yield(l.Body, l.Attributes["log.record.uid"])
				}
			})
			for i, l := range logs { // one connection after the other: in order
				if want := records[i].Object; l.Attributes["aws.s3.key"] != want.Key || l.Attributes["cloud.region"] != want.Region || l.Attributes["env"] != "test" {
					t.Fatalf("record %d: %v, want %v", i, l.Attributes, want)
				}
			}
		})
	}
}

// The receiver decodes events that are objects and stores their values, so those
// are compared as values. It refuses a batch with a number that float64 can't
// hold, so the corpus's such record, one a layout, stays out.
func TestRealReceiver_SplunkHEC(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real collector: not with -short")
	}
	for _, of := range []struct {
		name string
		ack  bool
	}{{"taken", false}, {"acknowledged", true}} {
		t.Run(of.name, func(t *testing.T) {
			c, err := receivertest.StartHEC(t.TempDir(), of.ack)
			need(t, err, false)
			t.Cleanup(c.Kill)
			conf := Config{URL: c.URL(), Format: SplunkHEC, Token: "0000-1111", Version: "test"}
			conf.Indexing = Indexing{Ack: of.ack, Index: "aws", Sourcetype: "aws:cloudtrail", Host: "collector-1"}
			o := open(t, conf)
			batches, records := corpusBatches()
			tooMuch := func(r record.Record) bool {
				var v any
				return json.Unmarshal(r.Raw, &v) != nil
			}
			n := len(records)
			records = slices.DeleteFunc(records, tooMuch)
			if n-len(records) > len(corpus.Layouts()) {
				t.Fatalf("%d records can't be decoded", n-len(records))
			}
			for _, b := range batches {
				b.Records = slices.DeleteFunc(b.Records, tooMuch)
			}
			keys := map[string]string{}
			for _, b := range batches {
				if err := o.Send(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
			for i := range records {
				r := &records[i]
				keys[r.Identity()] += " s3://" + r.Object.Bucket + "/" + r.Object.Key + " "
				var v any
				if err := json.Unmarshal(r.Raw, &v); err != nil {
					t.Fatal(err)
				}
				if r.Raw, err = json.Marshal(v); err != nil {
					t.Fatal(err)
				}
			}
			logs, err := c.Records()
			if err != nil {
				t.Fatal(err)
			}
			compare(t, records, 0, func(yield func(body, id string)) {
				for _, l := range logs {
					yield(l.Body, l.Attributes["record_id"])
				}
			})
			for _, l := range logs {
				a := l.Attributes
				if !strings.Contains(keys[a["record_id"]], " "+a["com.splunk.source"]+" ") || a["com.splunk.index"] != "aws" ||
					a["com.splunk.sourcetype"] != "aws:cloudtrail" || a["host.name"] != "collector-1" || a["env"] != "test" {
					t.Fatalf("%v", a)
				}
			}
		})
	}
}

func TestRealReceiver_Loki(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real Loki: not with -short")
	}
	program, err := receivertest.FindProgram("loki", "TRAILPOLL_LOKI", "build it with .ci/fetch loki")
	need(t, err, true)
	base := startLoki(t, program)
	o := open(t, Config{URL: base + "/otlp/v1/logs", Format: OTLP, Version: "test"})
	batches, records := corpusBatches()
	for _, b := range batches {
		if err := o.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	// Loki may keep one of the lines of a stream that agree in time, text and
	// structured metadata: of an event that stands in one object twice.
	seen := map[string]bool{}
	n := len(records)
	records = slices.DeleteFunc(records, func(r record.Record) bool {
		key := r.Object.Key + " " + r.Identity() + " " + string(r.Raw)
		again := seen[key]
		seen[key] = true
		return again
	})
	t.Logf("%d records stand in their objects twice", n-len(records))
	compare(t, records, n-len(records), func(yield func(body, id string)) {
		for _, l := range lokiLines(t, base) {
			yield(l.body, l.labels["log_record_uid"])
		}
	})
}

// startLoki starts a Loki that keeps all in a folder, and returns its URL.
func startLoki(t *testing.T, program string) string {
	dir := t.TempDir()
	in := newReceiver(t, nil) // for its port
	in.Fail(refusing)
	conf := fmt.Sprintf(`
auth_enabled: false
server: {http_listen_address: 127.0.0.1, http_listen_port: %s, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0, log_level: error, grpc_server_max_recv_msg_size: 200000000, grpc_server_max_send_msg_size: 200000000, http_server_write_timeout: 2m}
common:
  instance_addr: 127.0.0.1
  path_prefix: %s
  replication_factor: 1
  ring: {instance_addr: 127.0.0.1, kvstore: {store: inmemory}}
  storage: {filesystem: {chunks_directory: %[2]s/chunks, rules_directory: %[2]s/rules}}
schema_config:
  configs: [{from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}]
ingester: {max_chunk_age: 2000h}
limits_config:
  creation_grace_period: 24h
  allow_structured_metadata: true
  reject_old_samples: false
  max_entries_limit_per_query: 100000
  ingestion_rate_mb: 100
  ingestion_burst_size_mb: 200
  per_stream_rate_limit: 100MB
  per_stream_rate_limit_burst: 200MB
  unordered_writes: true
analytics: {reporting_enabled: false}
`, portOf(t, in.addr), dir)
	file := filepath.Join(dir, "loki.yaml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-config.file="+file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("%s", said[max(0, len(said)-4000):])
		}
	})
	base := "http://" + in.addr
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for begun := time.Now(); ; {
		resp, err := client.Get(base + "/ready")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return base
			}
		}
		if time.Since(begun) > 2*time.Minute {
			t.Fatal("Loki doesn't come up")
		}
		<-time.After(100 * time.Millisecond)
	}
}

func portOf(t *testing.T, addr string) string {
	u, err := url.Parse("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

type lokiLine struct {
	body   string
	labels map[string]string
}

// lokiLines asks for all that Loki has of the last month, piece by piece.
func lokiLines(t *testing.T, base string) (all []lokiLine) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	end := time.Now().Add(3 * time.Hour)
	busy := end.Add(-6 * time.Hour)
	var step time.Duration
	for from := end.Add(-30 * 24 * time.Hour); from.Before(end); from = from.Add(step) {
		step = 10 * time.Minute
		if from.Before(busy) {
			step = min(24*time.Hour, busy.Sub(from))
		}
		q := url.Values{
			"query": {`{service_name="cloudtrail"}`}, "limit": {"100000"}, "direction": {"forward"},
			"start": {strconv.FormatInt(from.UnixNano(), 10)}, "end": {strconv.FormatInt(from.Add(step).UnixNano(), 10)},
		}
		resp, err := client.Get(base + "/loki/api/v1/query_range?" + q.Encode())
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %.500s, %v", resp.Status, text, err)
		}
		var said struct {
			Data struct {
				Result []struct {
					Stream map[string]string
					Values [][]json.RawMessage
				}
			}
		}
		if err := json.Unmarshal(text, &said); err != nil {
			t.Fatal(err)
		}
		for _, s := range said.Data.Result {
			for _, v := range s.Values {
				var body string
				if err := json.Unmarshal(v[1], &body); err != nil {
					t.Fatal(err)
				}
				all = append(all, lokiLine{body, s.Stream})
			}
		}
	}
	return slices.Clip(all)
}
