package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// modeVariable says what the stand-in for the agent does wrong.
const modeVariable = "TRAILPOLL_DEMO_TEST_MODE"

// TestMain lets the test's own program play the two programs that the
// demonstration starts: its S3 server and the agent.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "s3":
			os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
		case "run":
			if err := standIn(os.Args[3], os.Getenv(modeVariable)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

var logName = regexp.MustCompile(`_CloudTrail(-Insight|-NetworkActivity|-Aggregated)?_[a-z0-9-]+_\d{8}T\d{4}Z_[A-Za-z0-9]{16}\.json\.gz$`)

// standIn does what the agent does in the simplest way: list all, send what is
// new, until SIGTERM.
func standIn(path, mode string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, _, err := config.Load(path)
	if err != nil {
		return err
	}
	src := c.Sources[0]
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(src.Bucket.Endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(defaultKey, os.Getenv(secretVariable), ""),
	})
	pem, err := os.ReadFile(filepath.Join(filepath.Dir(path), "ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	post := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	find := func(pattern string) string { return string(regexp.MustCompile(pattern).FindSubmatch(text)[1]) }
	syslog, err := net.Dial("tcp", find(`addresses *= \["(.+)"\]`))
	if err != nil {
		return err
	}
	defer syslog.Close()
	url := find(`url *= "(.+)"`)

	fmt.Fprintln(os.Stderr, `{"level":"info","message":"stand-in begins","mode":"`+mode+`"}`)
	seen := map[string]bool{}
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for {
		pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: aws.String(src.Bucket.Name)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(context.Background())
			if err != nil {
				return err
			}
			for _, e := range page.Contents {
				if seen[*e.Key] || !logName.MatchString(*e.Key) {
					continue
				}
				seen[*e.Key] = true
				records, err := fetch(client, src.Bucket.Name, *e.Key)
				if err != nil {
					return err
				}
				if len(seen) == 7 { // once, do what the mode says
					switch mode {
					case "lose":
						records = records[1:]
					case "repeat":
						records = append(records, records[0])
					case "alter":
						records[0] = bytes.Replace(records[0], []byte(`"eventVersion":"1`), []byte(`"eventVersion": "1`), 1)
					case "crash":
						return errors.New("the stand-in crashes")
					}
				}
				if err := deliver(post, url, syslog, records); err != nil {
					return err
				}
			}
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			if mode == "exit" {
				return errors.New("the stand-in ends with an error")
			}
			return nil
		}
	}
}

func fetch(client *s3.Client, bucket, key string) (records [][]byte, err error) {
	o, err := client.GetObject(context.Background(), &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		return nil, err
	}
	defer o.Body.Close()
	zr, err := gzip.NewReader(o.Body)
	if err != nil {
		return nil, err
	}
	var envelope struct{ Records []json.RawMessage }
	if err := json.NewDecoder(zr).Decode(&envelope); err != nil {
		return nil, err
	}
	for _, raw := range envelope.Records {
		records = append(records, raw)
	}
	return records, nil
}

func deliver(client *http.Client, url string, syslog io.Writer, records [][]byte) error {
	var body, messages bytes.Buffer
	for _, raw := range records {
		body.Write(raw)
		body.WriteByte('\n')
		m := "<134>1 2026-11-03T22:04:05Z host cloudtrail - - - " + string(raw)
		fmt.Fprintf(&messages, "%d %s", len(m), m)
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Authorization", "Bearer "+os.Getenv(tokenVariable))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = syslog.Write(messages.Bytes())
	return err
}

// TestDemonstration runs the demonstration with a stand-in for the agent that
// works, and with ones that do one thing wrong, which must be seen.
func TestDemonstration(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ mode, fault string }{
		{"", ""},
		{"lose", "lost 1, repeated 0, altered 0"},
		{"repeat", "lost 0, repeated 1, altered 0"},
		{"alter", "lost 0, repeated 0, altered 1"},
		{"crash", "the agent ended by itself: exit status 1"},
		{"exit", "stopping the agent: exit status 1"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Setenv(modeVariable, c.mode)
			var out, errs bytes.Buffer
			code := run([]string{"-agent", self, "-objects", "40", "-live", "500ms", "-quiet", "500ms", "-timeout", "6s"}, &out, &errs)
			if want := min(len(c.fault), 1); code != want {
				t.Errorf("exit code %d, wanted %d", code, want)
			}
			if !strings.Contains(errs.String(), c.fault) {
				t.Errorf("nothing says %q: %s", c.fault, errs.String())
			}
			if c.fault == "" {
				for _, text := range []string{"a late object", "Every record arrived at both outputs", "info  stand-in begins", "siem-https had the late object"} {
					if !strings.Contains(out.String(), text) {
						t.Errorf("nothing says %q", text)
					}
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-objects", "1"}, {"-no-such-flag"}, {"argument"}, {"s3"}, {"s3", "-dir", "x", "y"}} {
		if code := run(args, io.Discard, io.Discard); code != 2 {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	var errs bytes.Buffer
	if code := run([]string{"-agent", filepath.Join(t.TempDir(), "none")}, io.Discard, &errs); code != 1 || !strings.Contains(errs.String(), "go build") {
		t.Errorf("no agent: exit code %d, %s", code, errs.String())
	}
}

// TestConfiguration holds the configuration that the demonstration writes
// against the agent's own reading of it.
func TestConfiguration(t *testing.T) {
	t.Setenv(secretVariable, defaultSecret)
	t.Setenv(tokenVariable, token)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path, text, err := (&settings{
		StateDir: filepath.Join(dir, "state"), Bucket: bucketName, Prefix: layout().Prefix, Endpoint: "http://127.0.0.1:9000", Key: defaultKey,
		URL: "https://127.0.0.1:9001", CAFile: ca, Syslog: "127.0.0.1:9002",
	}).write(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := config.Load(path)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v\n%s", err, warnings, text)
	}
	if len(c.Sources) != 1 || len(c.Outputs) != 2 || c.Sources[0].Listing.LookBack != config.Duration(lookBack) {
		t.Errorf("%+v", c)
	}
}

// TestS3 puts the corpus's keys into the S3 server and lists them: the order,
// StartAfter and delimiters are what the agent relies on.
func TestS3(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	server, err := start(self, []string{"s3", "-end-with-stdin", "-dir", t.TempDir()}, nil,
		func(line string) {
			if url, found := strings.CutPrefix(line, "listening on "); found {
				ready <- url
			}
		}, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.stop(5 * time.Second); err != nil {
			t.Error(err)
		}
	}()
	var url string
	select {
	case url = <-ready:
	case <-server.ended:
		t.Fatal(server.err)
	}
	b, err := newBucket(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	for o := range corpus.New(1).Objects(corpus.Traffic{Layout: layout(), Slots: 1, Clutter: true}) {
		want[o.Key] = o.Body
		if err := b.put(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
	}
	last := ""
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: aws.String(bucketName), MaxKeys: aws.Int32(10)})
	for n := 0; pages.HasMorePages(); n++ {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Contents {
			if *e.Key <= last {
				t.Errorf("%s comes after %s", *e.Key, last)
			}
			last = *e.Key
			if int(*e.Size) != len(want[last]) {
				t.Errorf("%s has %d bytes, wanted %d", last, *e.Size, len(want[last]))
			}
			delete(want, last)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d objects are not listed", len(want))
	}
}

func TestCondense(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"info","source":"a","n":12345678901,"time":"2026-11-03T22:04:05Z","message":"hello"}`: "info  hello  source=a n=12345678901",
		`{"level":"warn","message":"alone"}`: "warn  alone",
		`no JSON`:                            "no JSON",
		`{"cut":`:                            `{"cut":`,
	} {
		if got, _ := condense(line); got != want {
			t.Errorf("%s: %q, wanted %q", line, got, want)
		}
	}
}
