package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// other is another way to do what the agent does.
type other struct {
	Name    string  `json:"name"`
	Records int     `json:"records"` // it was given fewer where it is slow
	CPU     float64 `json:"cpu_seconds"`
	Peak    int64   `json:"peak_memory_bytes,omitempty"`
}

// perMillion is CPU-seconds for a million records.
func (o *other) perMillion() float64 { return o.CPU * 1e6 / float64(o.Records) }

// shellShare is which part of a set the pipe of commands is given.
const shellShare = 10

// measureOthers runs what a user would otherwise do, n times each.
func (e *environment) measureOthers(ctx context.Context, st *stage, w *work, in *stored, n int) ([]other, error) {
	var all []other
	run := func(name string, records int, f func() (cost, error)) error {
		var cpu []float64
		o := other{Name: name, Records: records}
		for range n {
			c, err := f()
			if err != nil {
				return fmt.Errorf("running %s: %w", name, err)
			}
			cpu = append(cpu, c.CPU)
			o.Peak = max(o.Peak, c.Peak)
		}
		o.CPU = spreadOf(cpu).Median
		fmt.Fprintf(e.stderr, "%s, %s: %.2f CPU-seconds per million records\n", w.name, name, o.perMillion())
		all = append(all, o)
		return nil
	}
	err := run("stdlib gzip, []json.RawMessage", in.records, func() (cost, error) { return e.runBare(ctx, st, w, "-stdlib") })
	if err != nil {
		return nil, err
	}
	sh := e.shell(ctx)
	if sh == "" {
		fmt.Fprintln(e.stderr, "not compared with curl | gzip -dc | jq | curl: not all of them are here")
		return all, nil
	}
	keys := in.keys[:max(1, len(in.keys)/shellShare)]
	records := len(keys) * w.set.records
	err = run("curl | gzip -dc | jq | curl", records, func() (cost, error) {
		c, err := e.runShell(ctx, st, sh, keys, records)
		c.Peak = 0 // of the shell alone
		return c, err
	})
	return all, err
}

// shell is the shell's path; "" if anything that the pipe needs is missing.
func (e *environment) shell(ctx context.Context) (sh string) {
	for _, name := range []string{"gzip", "jq", "curl", "sh"} {
		l := lister{program: name, pack: name}
		if sh = l.find(ctx, e.install); sh == "" {
			return ""
		}
	}
	return sh
}

// The pipe gets its keys as a gift: it does not list. One curl gets all the
// objects, and one pipe works on all of them. What its commands took is counted
// into the shell's time, which waits for each of them.
const pipe = `curl -sf --config "$1/get" --aws-sigv4 "aws:amz:$3:s3" --user "$4" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' &&
  find "$1" -name '*.gz' -exec cat '{}' + | gzip -dc | jq -c '.Records[]' |
  curl -sf -o "$1/answer" -H 'Content-Type: application/x-ndjson' --data-binary @- "$2"`

func (e *environment) runShell(ctx context.Context, st *stage, sh string, keys []string, records int) (c cost, err error) {
	dir, err := os.MkdirTemp("", "trailpoll-bench-")
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var get strings.Builder
	for i, key := range keys {
		fmt.Fprintf(&get, "url = \"%s/%s/%s\"\noutput = \"%s/%d.gz\"\n", st.s3.URL(), bucketName, key, filepath.ToSlash(dir), i)
	}
	if err := os.WriteFile(filepath.Join(dir, "get"), []byte(get.String()), 0o600); err != nil {
		return cost{}, err
	}
	st.reset()
	c, err = runChild(ctx, sh, []string{"-c", pipe, sh, dir, st.to.url + ingest, region, accessKey + ":" + secretKey})
	if err == nil {
		err = st.to.check(records)
	}
	return c, err
}
