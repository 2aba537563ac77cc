// Command lab is the other side in the tests of packages and services: an S3
// server with sample logs, and a receiver over HTTP that counts what comes of
// them. It has no part in the product.
//
//	lab serve -dir DIR     serves until it is killed; DIR/lab.toml is a source and an output for it
//	lab await -dir DIR     waits until enough records came, and prints the count
//	lab more -dir DIR      puts more objects into the bucket
//	lab skewed -dir DIR    prints how many requests S3 refused as signed at a wrong time
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

const (
	accessKey = "AKLAB"
	secretKey = "the-secret-of-the-lab"
	addrFile  = "lab.addr"
	confFile  = "lab.toml"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("serve, await, more or skewed?")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := f.String("dir", ".", "where the files are that say where the lab is")
	objects := f.Int("objects", 200, "objects in the bucket, or more of them")
	records := f.Int("records", 100, "records in each")
	delay := f.Duration("delay", 0, "what each request takes the receiver")
	host := f.String("host", "127.0.0.1", "the host that DIR/lab.toml names")
	batch := f.Int("batch", 100, "batch_records in DIR/lab.toml")
	atLeast := f.Int("at-least", 0, "records to wait for; 0 = all of them")
	timeout := f.Duration("timeout", time.Minute, "how long to wait")
	repeats := f.Int("repeats", 0, "how many may have come again")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "serve":
		return (&lab{dir: *dir, host: *host, delay: *delay, batch: *batch}).serve(*objects, *records)
	case "await":
		return await(*dir, *atLeast, *repeats, *timeout, out)
	case "more":
		_, err := ask(*dir, http.MethodPost, "/more?objects="+strconv.Itoa(*objects)+"&records="+strconv.Itoa(*records))
		return err
	case "skewed":
		n, err := ask(*dir, http.MethodGet, "/skewed")
		if err == nil {
			_, err = out.Write(n)
		}
		return err
	}
	return fmt.Errorf("%s is not known", args[0])
}

type lab struct {
	dir, host string
	delay     time.Duration
	batch     int
	server    *s3test.Server
	tally     receivertest.Tally
	rounds    int       // of objects put; one request at a time
	next      time.Time // the stamp that the next round begins with
}

func (l *lab) serve(objects, records int) error {
	l.server = s3test.New(s3test.Config{AccessKey: accessKey, Region: "us-east-1", MaxSkew: 15 * time.Minute})
	l.put(objects, records)
	receiver, err := receivertest.NewHTTP(receivertest.HTTPConfig{
		Take: func(raw []byte) { l.tally.Take(raw) },
		Answer: func(*receivertest.Request) receivertest.Answer {
			return receivertest.Answer{Delay: l.delay}
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = receiver.Close() }()
	var ports net.ListenConfig
	bucket, err := ports.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	control, err := ports.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	serve := func(n net.Listener, h http.Handler) {
		go func() {
			ended <- (&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}).Serve(n)
		}()
	}
	serve(bucket, l.server)
	serve(control, l.control())
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	text := fmt.Sprintf(`
[[source]]
name = "lab"
bucket = "logs"
region = "us-east-1"
endpoint = "http://%[1]s:%[2]s"
allow_http = true
path_style = true
start = "2023-01-01"
refresh = "1s"
idle_refresh = "1s"
discovery = "2s"
[source.credentials]
type = "static"
access_key_id = "%[3]s"
secret_access_key = "%[4]s"

[[output]]
name = "lab"
type = "https"
url = "http://%[1]s:%[5]s/ingest"
allow_http = true
batch_records = %[6]d
batch_wait = "100ms"
`, l.host, port(bucket.Addr().String()), accessKey, secretKey, port(receiver.Addr()), l.batch)
	if err := os.WriteFile(filepath.Join(l.dir, confFile), []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, addrFile), []byte(control.Addr().String()), 0o600); err != nil {
		return err
	}
	return <-ended
}

// put puts objects into the bucket and expects their records.
func (l *lab) put(objects, records int) {
	l.rounds++
	slots := max(1, objects/10)
	if l.next.IsZero() {
		l.next = time.Now().UTC().Add(-72 * time.Hour)
	}
	from := l.next
	l.next = from.Add(time.Duration(slots) * 5 * time.Minute) // in front of all that is there
	for o := range corpus.New(uint64(l.rounds)).Objects(corpus.Traffic{
		Accounts: 1, Regions: corpus.Regions()[:1], LogTypes: []string{corpus.CloudTrail},
		From: from, Slots: slots, FilesPerSlot: min(10, objects), Records: records, OneTrail: true,
	}) {
		for i := range o.Records {
			l.tally.Expect(o.Records[i].Raw, o.Records[i].EventID)
		}
		l.server.Put("logs", o.Key, o.Body)
	}
}

func (l *lab) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(l.tally.Result())
	})
	mux.HandleFunc("GET /skewed", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, l.server.Count(s3test.Skewed))
	})
	mux.HandleFunc("POST /more", func(w http.ResponseWriter, r *http.Request) {
		objects, err := strconv.Atoi(r.FormValue("objects"))
		records, err2 := strconv.Atoi(r.FormValue("records"))
		if err != nil || err2 != nil {
			http.Error(w, "no numbers", http.StatusBadRequest)
			return
		}
		l.put(objects, records)
	})
	return mux
}

func ask(dir, method, path string) ([]byte, error) {
	addr, err := os.ReadFile(filepath.Join(dir, addrFile))
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "http", Host: strings.TrimSpace(string(addr))}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String()+path, nil) //nolint:gosec // the address is the lab's own
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// await waits for records. All of them means that none is lost, none altered,
// and no more repeated than allowed.
func await(dir string, atLeast, repeats int, timeout time.Duration, out io.Writer) error {
	end := time.NewTimer(timeout)
	defer end.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	var last string
	for {
		body, err := ask(dir, http.MethodGet, "/tally")
		var r receivertest.Result
		if err == nil {
			err = json.Unmarshal(body, &r)
		}
		if err != nil {
			last = err.Error()
		} else {
			last = r.String()
			switch {
			case r.Altered > 0:
				return errors.New(last)
			case atLeast > 0 && r.Received >= atLeast, atLeast == 0 && r.Lost == 0:
				if r.Repeated > repeats {
					return fmt.Errorf("%s, where %d may come again", last, repeats)
				}
				_, err := fmt.Fprintln(out, last)
				return err
			}
		}
		select {
		case <-look.C:
		case <-end.C:
			return fmt.Errorf("not within %v: %s", timeout, last)
		}
	}
}
