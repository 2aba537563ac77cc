//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// stopped ends a running agent in order.
func stopped(t *testing.T, c *child) {
	t.Helper()
	c.signal(syscall.SIGTERM)
	if code := c.wait(30 * time.Second); code != 0 {
		t.Fatalf("exit %d after SIGTERM, want 0", code)
	}
}

// received is how many records all receivers have.
func received(receivers ...*receiver) (all []int) {
	for _, r := range receivers {
		all = append(all, r.tally.Received())
	}
	return all
}

// onceTwiceAndLive runs the agent once, and again, which must send nothing; then
// it keeps running, and a new object must come within one refresh.
func onceTwiceAndLive(t *testing.T, conf *settings, b *bucket, fresh corpus.Object, receivers ...*receiver) {
	t.Helper()
	conf.code(t, 0, time.Minute, "run", "--once")
	for _, r := range receivers {
		r.whole(t)
	}
	before := received(receivers...)
	conf.code(t, 0, time.Minute, "run", "--once")
	if after := received(receivers...); !slices.Equal(before, after) {
		t.Errorf("a second run sent something: %v records, then %v", before, after)
	}
	if t.Failed() {
		return
	}

	c := conf.start(t, "run")
	await(t, 20*time.Second, "the source goes on", func() bool { return c.says("source goes on where it was") })
	for _, r := range receivers {
		r.expect(&fresh)
	}
	b.put(t, fresh.Key, fresh.Body)
	written := time.Now()
	await(t, 20*time.Second, "the new object", func() bool {
		return !slices.ContainsFunc(receivers, func(r *receiver) bool {
			return r.tally.Received() < r.tally.Result().Written
		})
	})
	// The refresh is 1 s and varies by a tenth, a batch waits 200 ms at most; the
	// rest is for a busy machine.
	took := time.Since(written)
	t.Logf("a new object was received after %v, with a refresh of 1s", took.Round(time.Millisecond))
	if took > 3*time.Second {
		t.Errorf("the new object came after %v", took)
	}
	stopped(t, c)
	for _, r := range receivers {
		r.whole(t)
	}
}

// dataFolder is where published logs are, and skips the test where they aren't.
func dataFolder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("TRAILPOLL_SHARED_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("published logs are not there (name their folder in TRAILPOLL_SHARED_DATA): %v", err)
	}
	return dir
}

// realLogs are the published logs of one account, as CloudTrail wrote them.
func realLogs(t *testing.T) (all []corpus.Object) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dataFolder(t), "invictus-ir_aws_dataset", "CloudTrail", "*.json"))
	if err != nil || len(files) != 55 {
		t.Fatalf("%d files of 55, %v", len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		raw = bytes.TrimSuffix(raw, []byte("\n")) // the publisher's
		account, _, _ := strings.Cut(filepath.Base(file), "_")
		o := corpus.Object{
			Kind: corpus.Log,
			Key:  "AWSLogs/" + account + "/CloudTrail/us-east-1/2023/07/10/" + filepath.Base(file) + ".gz",
			Body: packed(t, raw),
		}
		var envelope struct{ Records []json.RawMessage }
		if err := json.Unmarshal(raw, &envelope); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for i, r := range envelope.Records {
			o.Records = append(o.Records, corpus.Record{Index: i, Raw: r})
		}
		all = append(all, o)
	}
	return all
}

func packed(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestE2E_Invariant7_RealLogs(t *testing.T) {
	b := newBucket(t)
	logs := realLogs(t)
	web, sys := newHTTPS(t, "web", receivertest.HTTPConfig{}), newSyslog(t, "sys", receivertest.SyslogConfig{})
	_, records := b.putAll(t, slices.Values(logs), web, sys)
	if records != 2900 {
		t.Fatalf("%d records, want 2,900", records)
	}
	account := strings.Split(logs[0].Key, "/")[1]
	fresh := newest(account, "us-east-1")
	conf := newSettings(t, "", source("real", b, "", ""), web.output(""), sys.output(""))
	onceTwiceAndLive(t, conf, b, fresh, web, sys)
}

// newest is an object as one that CloudTrail would write just now.
func newest(account, region string) corpus.Object {
	for o := range corpus.New(77).Objects(corpus.Traffic{
		Accounts: 1, Regions: []string{region}, LogTypes: []string{corpus.CloudTrail},
		From: time.Now(), Slots: 1, FilesPerSlot: 1, Records: 20, OneTrail: true,
	}) {
		o.Key = strings.ReplaceAll(o.Key, corpus.Account(0), account)
		return o
	}
	panic("the corpus made nothing")
}

// hoursAgo is a stamp that traffic may begin with.
func hoursAgo(n int) time.Time {
	return time.Now().Add(-time.Duration(n) * time.Hour).Truncate(time.Hour)
}

func TestE2E_Invariant7_Corpus(t *testing.T) {
	b := newBucket(t)
	web, sys := newHTTPS(t, "web", receivertest.HTTPConfig{}), newSyslog(t, "sys", receivertest.SyslogConfig{})
	c := corpus.New(7)
	var parts []string
	kinds := map[corpus.Kind]int{}
	files, records := b.putAll(t, func(yield func(corpus.Object) bool) {
		for _, l := range corpus.Layouts() {
			for _, objects := range []iter.Seq[corpus.Object]{
				c.Objects(corpus.Traffic{
					Layout: l, Accounts: 2, Regions: corpus.Regions()[:2], LogTypes: corpus.LogTypes(),
					From: hoursAgo(30), Slots: 3, FilesPerSlot: 2, Clutter: true,
				}),
				c.Odd(l, hoursAgo(80)), // one of them lies in the folder of two days later
			} {
				for o := range objects {
					kinds[o.Kind]++
					if !yield(o) {
						return
					}
				}
			}
		}
	}, web, sys)
	for i, l := range corpus.Layouts() {
		parts = append(parts, source(fmt.Sprintf("layout-%d", i), b, l.Prefix, ""))
	}
	t.Logf("%d log files with %d records; kinds of objects: %v", files, records, kinds)
	if kinds[corpus.Digest] == 0 || kinds[corpus.Marker] == 0 || kinds[corpus.Foreign] == 0 {
		t.Errorf("nothing lies between the log files: %v", kinds)
	}
	conf := newSettings(t, "", append(parts, web.output(""), sys.output(""))...)
	onceTwiceAndLive(t, conf, b, newest(corpus.Account(0), corpus.Regions()[0]), web, sys)
}

// An object whose key sorts three days before the watermark appears.
func TestE2E_Invariant3_Late(t *testing.T) {
	b := newBucket(t)
	web, sys := newHTTPS(t, "web", receivertest.HTTPConfig{}), newSyslog(t, "sys", receivertest.SyslogConfig{})
	traffic := func(from time.Time, slots int) iter.Seq[corpus.Object] {
		return corpus.New(3).Objects(corpus.Traffic{
			Accounts: 1, Regions: corpus.Regions()[:1], LogTypes: []string{corpus.CloudTrail},
			From: from, Slots: slots, FilesPerSlot: 1, Records: 10, OneTrail: true,
		})
	}
	b.putAll(t, traffic(hoursAgo(96), 3), web, sys)
	b.putAll(t, traffic(hoursAgo(2), 12), web, sys)
	conf := newSettings(t, "", source("late", b, "", ""), web.output(""), sys.output(""))
	conf.code(t, 0, time.Minute, "run", "--once")
	web.whole(t)

	_, late := b.putAll(t, traffic(hoursAgo(74), 1), web, sys)
	if late != 10 {
		t.Fatalf("%d late records", late)
	}
	for range 2 { // it arrives, and once
		conf.code(t, 0, time.Minute, "run", "--once", "--sweep")
		web.whole(t)
		sys.whole(t)
	}
}

// An object whose name is from the future does not hide those of today: they
// come with the next refresh, not with the next sweep.
func TestE2E_Invariant3_NameFromTheFuture(t *testing.T) {
	b := newBucket(t)
	web := newHTTPS(t, "web", receivertest.HTTPConfig{})
	b.putAll(t, corpus.New(9).Objects(corpus.Traffic{
		Accounts: 1, Regions: corpus.Regions()[:1], LogTypes: []string{corpus.CloudTrail},
		From: time.Now().Add(48 * time.Hour), Slots: 1, FilesPerSlot: 1, Records: 3, OneTrail: true,
	}), web)
	conf := newSettings(t, "", source("future", b, "", ""), web.output(""))
	onceTwiceAndLive(t, conf, b, newest(corpus.Account(0), corpus.Regions()[0]), web)
}
