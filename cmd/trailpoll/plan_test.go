package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

var updatePlan = flag.Bool("update-plan", false, "write the golden files of plan anew")

var planNow = time.Date(2026, 11, 20, 18, 15, 0, 0, time.UTC)

// planBucket is an S3 with a quiet stream, one of office hours, a busy one and
// some idle ones, over the days before planNow.
func planBucket(t *testing.T, days int) *s3test.Server {
	t.Helper()
	s, err := s3test.Start(s3test.Config{Now: func() time.Time { return planNow }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	serial := 0
	put := func(stream string, at time.Time, size int64) {
		serial++
		stamp := at.Add(-3 * time.Minute).Truncate(5 * time.Minute)
		p := strings.Split(stream, "/")
		p = p[len(p)-3:]
		key := fmt.Sprintf("audit/AWSLogs/%s/%s/%s_%s_%s_%s_%016x.json.gz", stream, stamp.Format("2006/01/02"),
			p[0], p[1], p[2], stamp.Format("20060102T1504Z"), uint64(serial)*0x9E3779B97F4A7C15)
		s.PutObject("logs", key, s3test.Object{
			Make: func(string) []byte { return nil }, Size: size, LastModified: at,
		})
	}
	for m := range 60 * 24 * days {
		at := planNow.Add(-time.Duration(m) * time.Minute)
		if m%5 == 0 {
			put("111122223333/CloudTrail/eu-central-1", at, 6000)
		}
		if m%5 == 1 && at.Hour() >= 8 && at.Hour() < 17 {
			put("111122223333/CloudTrail/us-east-1", at, 4000)
		}
		for i := range 6 {
			put("o-a1b2c3d4e5/444455556666/CloudTrail/eu-central-1", at.Add(time.Duration(i)*time.Second), 9000)
		}
	}
	for i := range 12 {
		put(fmt.Sprintf("111122223333/CloudTrail-Insight/eu-west-%d", i), planNow.AddDate(0, 0, -20), 900)
	}
	return s
}

// planConfig writes a configuration with one source for each bucket.
func planConfig(t *testing.T, s *s3test.Server, buckets ...string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "[agent]\nstate_dir = %q\n", filepath.Join(t.TempDir(), "state"))
	for i, bucket := range buckets {
		fmt.Fprintf(&b, `
[[source]]
name = "trail-%d"
bucket = %q
prefix = "audit"
region = "eu-central-1"
endpoint = %q
path_style = true
[source.credentials]
type = "static"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "env:TRAILPOLL_TEST_SECRET"
`, i, bucket, s.URL())
	}
	b.WriteString("\n[[output]]\nname = \"screen\"\ntype = \"stdout\"\n")
	t.Setenv("TRAILPOLL_TEST_SECRET", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
	path := filepath.Join(t.TempDir(), "trailpoll.toml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	code = run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestPlanGolden(t *testing.T) {
	s := planBucket(t, 2)
	conf := planConfig(t, s, "logs")
	for name, args := range map[string][]string{
		"table":      nil,
		"all":        {"--all", "--kms=on", "--price", "list=0.0053,transfer=0"},
		"budget":     {"--budget", "2"},
		"budget-met": {"--budget", "50"},
		"budget-low": {"--budget", "0.10"},
		"json":       {"--json", "--budget", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := runCommand(t, slices.Concat([]string{"plan", "--config", conf}, args)...)
			if code != exitDone || stderr != "" {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			golden := filepath.Join("testdata", "plan", name+".golden")
			if *updatePlan {
				if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out != string(want) {
				t.Errorf("got\n%s\nwant\n%s", out, want)
			}
		})
	}
	if n := s.Count(s3test.GetObject); n > 0 {
		t.Errorf("plan has read %d objects", n)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(conf), "state")); err == nil {
		t.Error("plan has made a state directory")
	}
}

func TestPlanWithoutWhatCannotBeListed(t *testing.T) {
	s := planBucket(t, 1)
	s.Inject(func(_, _, key string, _ int) s3test.Fault {
		if strings.HasPrefix(key, "audit/AWSLogs/111122223333/CloudTrail-Insight/") {
			return s3test.Fault{Kind: s3test.Answer, Status: 403, Code: "AccessDenied", Message: "Access Denied"}
		}
		return s3test.Fault{}
	})
	conf := planConfig(t, s, "logs", "not-there")
	code, out, stderr := runCommand(t, "plan", "--config", conf)
	if code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	for _, want := range []string{"source trail-0: ", "CloudTrail-Insight", "source trail-1: ", "not-there"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("standard error lacks %q:\n%s", want, stderr)
		}
	}
	for _, want := range []string{"source trail-0, logs/audit: 3 streams in 2 accounts", "source trail-1, not-there/audit: could not be listed", "\ndouble "} {
		if !strings.Contains(out, want) {
			t.Errorf("standard output lacks %q:\n%s", want, out)
		}
	}

	code, out, _ = runCommand(t, "plan", "--json", "--config", conf)
	var got planJSON
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitFailed {
		t.Fatalf("exit code %d, %v", code, err)
	}
	if len(got.Sources) != 2 || len(got.Sources[0].Failed) != 1 || got.Sources[1].Error == "" || got.Sources[1].Remedy == "" || len(got.Settings[0].Sources) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestPlanUsage(t *testing.T) {
	conf := planConfig(t, planBucket(t, 1), "logs")
	for _, args := range [][]string{
		{"--kms=perhaps"}, {"--price", "list"}, {"--budget", "0"}, {"--budget", "NaN"}, {"--days", "0"}, {"--days", "31"}, {"more"},
	} {
		code, out, stderr := runCommand(t, slices.Concat([]string{"plan", "--config", conf}, args)...)
		if code != exitUsage || out != "" || !strings.HasPrefix(stderr, "trailpoll: ") {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
	if code, _, _ := runCommand(t, "plan", "--config", filepath.Join(t.TempDir(), "none.toml")); code != exitUsage {
		t.Errorf("no configuration: exit code %d", code)
	}
}

func TestPlanNumbers(t *testing.T) {
	for in, want := range map[float64]string{0: "0", 0.04: "0", 0.5: "0.5", 9.94: "9.9", 9.96: "10", 12.4: "12", 999.6: "1,000", 1234567: "1,234,567"} {
		if got := number(in); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[float64]string{0: "0.00", 0.996: "1.00", 1234.5: "1,234.50"} {
		if got := money(in); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[float64]string{0: "0 B", 999: "999 B", 1500: "1.5 kB", 2e9: "2.0 GB", 3.25e13: "32.5 TB"} {
		if got := dataSize(in); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
}
