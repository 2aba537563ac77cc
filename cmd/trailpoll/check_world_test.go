package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/agent/check"
)

// What a broken set-up is made of. Secrets of it begin with "hunter2": none is
// to be seen in anything printed.
const (
	checkUser  = "arn:aws:iam::111122223333:user/trailpoll"
	checkRole  = "arn:aws:iam::222233334444:role/trailpoll-read"
	checkChain = "arn:aws:iam::333344445555:role/trailpoll-last"
	checkKey   = "arn:aws:kms:us-east-1:222233334444:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// setting is one set-up, whole until a test breaks it.
type setting struct {
	t   *testing.T
	s3  *s3test.Server
	sts *fakeSTS
	out *fakeReceiver
	now func() time.Time // S3's

	// The configuration. Lines may be added; quotes belong to the caller.
	endpoint, stsEndpoint, bucket, prefix, region string
	agentLines, sourceLines, tail                 string
	credentials                                   string // lines of [source.credentials]
	output                                        string // [[output]] and all below it
	stateDir                                      string
	mode                                          os.FileMode
	args                                          []string
}

// fakeSTS answers as STS does. Roles give keys that are known to it.
type fakeSTS struct {
	mu     sync.Mutex
	refuse func(action, role, externalID string) (status int, code, message string)
	user   string // whose the configured keys are
}

func (f *fakeSTS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	defer f.mu.Unlock()
	action, role := r.PostForm.Get("Action"), r.PostForm.Get("RoleArn")
	w.Header().Set("Content-Type", "text/xml")
	if f.refuse != nil {
		if status, code, message := f.refuse(action, role, r.PostForm.Get("ExternalId")); status != 0 {
			w.WriteHeader(status)
			fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>R</RequestId></ErrorResponse>`, code, message)
			return
		}
	}
	inner := ""
	switch action {
	case "GetCallerIdentity":
		who := f.user
		if _, after, ok := strings.Cut(r.Header.Get("Authorization"), "Credential=ASIA"); ok {
			account, _, _ := strings.Cut(after, "/")
			who = "arn:aws:sts::" + account + ":assumed-role/trailpoll-read/trailpoll"
		}
		inner = fmt.Sprintf("<Arn>%s</Arn><UserId>U</UserId><Account>%s</Account>", who, strings.Split(who, ":")[4])
	case "AssumeRole":
		account := strings.Split(role, ":")[4]
		inner = fmt.Sprintf("<AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>%s</Arn></AssumedRoleUser><Credentials><AccessKeyId>ASIA%s</AccessKeyId><SecretAccessKey>hunter2-assumed-key</SecretAccessKey><SessionToken>hunter2-assumed-token</SessionToken><Expiration>%s</Expiration></Credentials>",
			role, account, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>R</RequestId></ResponseMetadata></%[1]sResponse>`, action, inner)
}

// fakeReceiver is the far end of an https output.
type fakeReceiver struct {
	mu     sync.Mutex
	status int
	header map[string]string
	posts  int
}

func (f *fakeReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodPost {
		f.posts++
	}
	for k, v := range f.header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(f.status)
}

// serve returns the URL of a handler on a loopback port.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// free returns the address of a port at which nothing listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// mute returns the address of a port that takes connections and never answers.
func mute(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func (s *setting) put(at, account, region string, age time.Duration, o s3test.Object) string {
	stamp := s.now().Add(-age).UTC()
	if o.Body == nil {
		o.Body = packed(s.t, `{"Records":[{"eventID":"a"},{"eventID":"b"}]}`)
	}
	if o.LastModified.IsZero() {
		o.LastModified = stamp
	}
	key := fmt.Sprintf("%sAWSLogs/%s/CloudTrail/%s/%s/%s_CloudTrail_%s_%s_AAAABBBBCCCCDDDD.json.gz", at, account, region,
		stamp.Format("2006/01/02"), account, region, stamp.Format("20060102T1504Z"))
	s.s3.PutObject(s.bucket, key, o)
	return key
}

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// deny makes S3 refuse operations, as it words it.
func (s *setting) deny(status int, code, message string, ops ...string) {
	s.s3.Inject(func(op, _, _ string, _ int) s3test.Fault {
		for _, o := range ops {
			if o == op {
				return s3test.Fault{Kind: s3test.Answer, Status: status, Code: code, Message: message, Header: map[string]string{"X-Amz-Request-Id": "R"}}
			}
		}
		return s3test.Fault{}
	})
}

func newSetting(t *testing.T, now func() time.Time, region string) *setting {
	t.Helper()
	server, err := s3test.Start(s3test.Config{AccessKey: "", Region: region, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := &setting{
		t: t, s3: server, sts: &fakeSTS{user: checkUser}, out: &fakeReceiver{status: http.StatusOK}, now: now,
		endpoint: server.URL(), bucket: "acme-cloudtrail-logs", region: "us-east-1", stateDir: filepath.Join(t.TempDir(), "state"), mode: 0o600,
		credentials: `type = "static"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "env:CHECK_SECRET"
session_token = "env:CHECK_SESSION"
`,
	}
	if err := os.Mkdir(s.stateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	server.CreateBucket(s.bucket)
	s.stsEndpoint = serve(t, s.sts)
	s.to(serve(t, s.out), "")
	return s
}

// to is an https output.
func (s *setting) to(url, lines string) {
	s.output = fmt.Sprintf("[[output]]\nname = \"siem\"\ntype = \"https\"\nurl = %q\ntoken = \"env:CHECK_TOKEN\"\n%s\n", url+"/ingest?key=hunter2-query", lines)
}

func (s *setting) role(arn, externalID string) {
	s.tail += fmt.Sprintf("[[source.credentials.assume_role]]\narn = %q\nexternal_id = %q\n", arn, externalID)
}

func (s *setting) text() string {
	sts := ""
	if s.stsEndpoint != "" {
		sts = fmt.Sprintf("sts_endpoint = %q\n", s.stsEndpoint)
	}
	tls, rest := "", s.tail
	if before, after, ok := strings.Cut(s.tail, "--tls--\n"); ok {
		tls, rest = before, after
	}
	return fmt.Sprintf("[agent]\nstate_dir = %q\n%s\n[[source]]\nname = \"trail\"\nbucket = %q\nprefix = %q\nregion = %q\nendpoint = %q\npath_style = true\n%s\n%s[source.credentials]\n%s%s\n%s\n%s",
		filepath.ToSlash(s.stateDir), s.agentLines, s.bucket, s.prefix, s.region, s.endpoint, s.sourceLines, tls, s.credentials, sts, rest, s.output)
}

// run runs check and returns its steps, if it came to any.
func (s *setting) run() (code int, steps []check.Step, stderr string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "trailpoll.toml")
	if err := os.WriteFile(path, []byte(s.text()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(path, s.mode); err != nil {
		s.t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code = run(s.t.Context(), append([]string{"check", "--json", "--config", path, "--timeout", "3s"}, s.args...), &out, &errs)
	for _, text := range []string{out.String(), errs.String()} {
		if i := strings.Index(text, "hunter2"); i >= 0 {
			s.t.Errorf("a secret is printed: …%s", text[max(0, i-200):min(len(text), i+40)])
		}
	}
	if out.Len() > 0 {
		var report checkReport
		d := json.NewDecoder(&out)
		d.DisallowUnknownFields()
		if err := d.Decode(&report); err != nil || report.Schema != 1 {
			s.t.Fatalf("%v, schema %d\n%s", err, report.Schema, errs.String())
		}
		steps = report.Steps
	}
	return code, steps, errs.String()
}

func always(status int, code, message string) func(string, string, string) (int, string, string) {
	return func(string, string, string) (int, string, string) { return status, code, message }
}

func orText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func show(steps []check.Step) string {
	var b strings.Builder
	heading := ""
	for i := range steps {
		showStep(&b, &steps[i], &heading)
	}
	return b.String()
}

func tlsOf(t *testing.T, certFile, keyFile string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
