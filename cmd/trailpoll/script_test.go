package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trailpoll": main})
}

// What the scripts keep secret. No script may see them printed.
var secrets = []string{"hunter2-secret-key", "hunter2-token", "hunter2-password"}

// TestScript runs the program by the scripts in testdata/script. Each has an
// S3 server in this process, ${S3}, with a bucket "logs" that holds ${RECORDS}
// records and a bucket "bad" that holds an object that is none, too.
//
//	exits CODE trailpoll ARGS   runs the program and wants that exit code
//	fill FILE…                  puts the environment's variables, ${NAME}, into files
//	await FILE REGEXP           waits until the file matches
//	lines FILE N                wants so many lines
//	rotate KEY N                makes another access key the only one that S3
//	                            takes, and waits for N more listings
//	doubled FILE                wants each record twice
//	nosecrets FILE…             wants no secret in stdout, stderr or files
//	grab VAR FILE REGEXP        sets VAR to what the first group matches
//	awaits REGEXP PROGRAM ARGS  runs the program until its output matches
//	get URL                     prints what is served there; wants status 200
//	mend                        puts a good object of one record in place of the one that is none
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			server, err := s3test.Start(s3test.Config{AccessKey: "AKSCRIPT", Region: "us-east-1"})
			if err != nil {
				return err
			}
			e.Defer(func() { _ = server.Close() })
			records := 0
			for o := range corpus.New(1).Objects(corpus.Traffic{Accounts: 2, Slots: 1, Clutter: true}) {
				records += len(o.Records)
				server.Put("logs", o.Key, o.Body)
				server.Put("bad", o.Key, o.Body)
			}
			server.Put("bad", badKey, []byte("no gzip"))
			e.Values[serverKey{}] = server
			e.Values[s3Key{}] = server
			e.Setenv("S3", server.URL())
			e.Setenv("RECORDS", strconv.Itoa(records))
			e.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			e.Setenv("SECRET_KEY", secrets[0])
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "fill": fill, "await": awaitFile, "lines": countLines, "doubled": doubled, "nosecrets": noSecrets, "rotate": rotate,
			"awaits": awaitOutput, "get": get, "grab": grab, "mend": mend,
		},
	})
}

// badKey is an object of the bucket "bad" that is none.
const badKey = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/11/03/111122223333_CloudTrail_us-east-1_20261103T2200Z_0000000000000000.json.gz"

type serverKey struct{}

func grab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: grab VAR FILE REGEXP")
	}
	pattern, err := regexp.Compile(args[2])
	ts.Check(err)
	text := ts.ReadFile(args[1])
	m := pattern.FindStringSubmatch(text)
	if len(m) != 2 {
		ts.Fatalf("%s has no %s with one group:\n%s", args[1], args[2], text)
	}
	ts.Setenv(args[0], m[1])
}

func awaitOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: awaits REGEXP PROGRAM ARGS…")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-look.C:
		case <-deadline.C:
			ts.Fatalf("the output never matches %s:\n%s%s", args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: get URL")
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := c.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(body)
	ts.Check(err)
	if (resp.StatusCode == http.StatusOK) == neg {
		ts.Fatalf("%s answers %s: %s", args[0], resp.Status, body)
	}
}

func mend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: mend")
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(`{"Records":[{"eventID":"mended"}]}`))
	ts.Check(errors.Join(err, z.Close()))
	ts.Value(serverKey{}).(*s3test.Server).Put("bad", badKey, b.Bytes())
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	ts.Logf("[exit %d]", got)
	if got != want {
		ts.Fatalf("exit %d, want %d", got, want)
	}
}

func fill(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		text := os.Expand(ts.ReadFile(name), func(v string) string { return filepath.ToSlash(ts.Getenv(v)) })
		ts.Check(os.WriteFile(path, []byte(text), 0o600))
		ts.Check(os.Chmod(path, 0o600)) // a configuration that others can read is warned about
	}
}

// s3Key finds the server among a script's values.
type s3Key struct{}

func rotate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: rotate KEY N")
	}
	more, err := strconv.Atoi(args[1])
	ts.Check(err)
	server := ts.Value(s3Key{}).(*s3test.Server)
	server.Rotate(args[0])
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for before := server.Count(s3test.ListObjectsV2); server.Count(s3test.ListObjectsV2) < before+more; {
		select {
		case <-look.C:
		case <-deadline.C:
			ts.Fatalf("nothing is listed any more")
		}
	}
}

func awaitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && pattern.Match(text) {
			return
		}
		select {
		case <-look.C:
		case <-deadline.C:
			ts.Fatalf("%s never matches %s:\n%s", args[0], args[1], text)
		}
	}
}

func countLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	if got := strings.Count(ts.ReadFile(args[0]), "\n"); fmt.Sprint(got) != args[1] {
		ts.Fatalf("%s has %d lines, want %s", args[0], got, args[1])
	}
}

func doubled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: doubled FILE")
	}
	n, err := strconv.Atoi(ts.Getenv("RECORDS"))
	ts.Check(err)
	countLines(ts, false, []string{args[0], strconv.Itoa(2 * n)})
}

func noSecrets(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: nosecrets FILE…")
	}
	for _, name := range append(slices.Clone(args), "stdout", "stderr") {
		for _, secret := range secrets {
			if bytes.Contains([]byte(ts.ReadFile(name)), []byte(secret)) {
				ts.Fatalf("%q is in %s", secret, name)
			}
		}
	}
}
