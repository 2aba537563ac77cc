package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// options are the flags.
type options struct {
	program string
	seed    uint64
	logs    int
	live    time.Duration
	quiet   time.Duration
	timeout time.Duration
	plain   bool
	keep    string
}

// sink is one receiver as the demonstration sees it.
type sink struct {
	name   string
	note   func() string // what to show beside its progress
	tally  receivertest.Tally
	board  *board
	mu     sync.Mutex
	late   map[string]bool // records of the late object that are still to come
	lateAt time.Time       // when the last of them came
	bad    error           // the first message that was none
}

// take counts a record.
func (s *sink) take(raw []byte) {
	s.tally.Take(raw)
	s.board.sample(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late[string(raw)] {
		if delete(s.late, string(raw)); len(s.late) == 0 {
			s.lateAt = time.Now()
		}
	}
}

// takeSyslog counts the record in a syslog message.
func (s *sink) takeSyslog(raw []byte) {
	m, err := receivertest.ParseRFC5424(raw)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.bad == nil {
			s.bad = err
		}
		return
	}
	s.take(m.Text)
}

// expectLate makes the sink watch for a late object.
func (s *sink) expectLate(o *corpus.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = map[string]bool{}
	for _, r := range o.Records {
		s.late[string(r.Raw)] = true
	}
}

func (s *sink) lateArrival() (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lateAt, s.bad
}

// show is a demonstration under way.
type show struct {
	options
	board  *board
	dir    string
	bucket *bucket
	agent  *child
	https  *sink
	syslog *sink
	lateIn time.Time // when the late object was written
}

// demonstrate runs the demonstration. It returns nil only if nothing was lost,
// repeated or altered, and the agent ended in order.
func demonstrate(ctx context.Context, o options, out io.Writer) error {
	program, err := filepath.Abs(o.program)
	if err != nil {
		return err
	}
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("finding the agent: %w; build it with `go build -o bin/trailpoll ./cmd/trailpoll`, or say -agent", err)
	}
	o.program = program
	d := &show{options: o, board: newBoard(out, o.plain)}
	if d.dir, err = workFolder(o.keep); err != nil {
		return err
	}
	if o.keep == "" {
		defer os.RemoveAll(d.dir)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	d.https = &sink{name: httpsOutput, board: d.board}
	d.syslog = &sink{name: syslogOutput, board: d.board}
	return d.run(ctx)
}

// workFolder is the folder for everything that the demonstration writes.
func workFolder(keep string) (string, error) {
	if keep == "" {
		return os.MkdirTemp("", "trailpoll-demo-")
	}
	dir, err := filepath.Abs(keep)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// run sets everything up, plays the scenes and counts.
func (d *show) run(ctx context.Context) error {
	endpoint, server, err := d.startS3(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = server.stop(5 * time.Second) }() // all that matters of it is over
	if d.bucket, err = newBucket(ctx, endpoint, &d.https.tally, &d.syslog.tally); err != nil {
		return err
	}

	ca, err := receivertest.NewCA()
	if err != nil {
		return err
	}
	h, err := receivertest.NewHTTP(receivertest.HTTPConfig{CA: ca, Take: d.https.take, Answer: authorized})
	if err != nil {
		return err
	}
	defer h.Close()
	d.https.note = func() string { return fmt.Sprintf("NDJSON, gzip, %s requests", thousands(h.Requests())) }
	s, err := receivertest.NewSyslog(receivertest.SyslogConfig{Take: d.syslog.takeSyslog})
	if err != nil {
		return err
	}
	defer s.Close()
	d.syslog.note = func() string { return "RFC 5424 over TCP, octet counting" }

	caFile := filepath.Join(d.dir, "ca.crt")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		return err
	}
	l := layout()
	config, text, err := (&settings{
		StateDir: filepath.Join(d.dir, "state"), Bucket: bucketName, Prefix: l.Prefix, Endpoint: endpoint,
		Key: defaultKey, URL: h.URL(), CAFile: caFile, Syslog: s.Addr(),
	}).write(d.dir)
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	d.board.open(config, text, endpoint, d.bucket, d.https, d.syslog)
	defer d.board.close()

	err = d.play(ctx, config)
	if d.agent != nil {
		err = errors.Join(err, d.stopAgent())
	}
	return errors.Join(err, d.count())
}

// authorized refuses what comes without the token.
func authorized(r *receivertest.Request) receivertest.Answer {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) == 0 {
		return receivertest.Answer{Status: http.StatusUnauthorized}
	}
	return receivertest.Answer{}
}

// startS3 runs this program again as an S3 server: it can be only one a
// process, and changes the working folder.
func (d *show) startS3(ctx context.Context) (endpoint string, server *child, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	ready := make(chan string, 1)
	var mu sync.Mutex
	var said []string
	server, err = start(self, []string{"s3", "-end-with-stdin", "-dir", filepath.Join(d.dir, "s3")}, nil,
		func(line string) {
			if url, found := strings.CutPrefix(line, "listening on "); found {
				ready <- url
			}
		},
		func(line string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, line)
		})
	if err != nil {
		return "", nil, err
	}
	select {
	case endpoint = <-ready:
		return endpoint, server, nil
	case <-server.ended:
		mu.Lock()
		defer mu.Unlock()
		return "", nil, fmt.Errorf("starting the S3 server: %w\n%s", server.err, strings.Join(said, "\n"))
	case <-ctx.Done():
		_ = server.stop(time.Second)
		return "", nil, fmt.Errorf("starting the S3 server: %w", ctx.Err())
	}
}

// play fills the bucket, starts the agent, keeps new objects coming with a
// late one in the middle, and waits until both receivers have all and are
// quiet.
func (d *show) play(ctx context.Context, config string) error {
	first, live, late := d.objects()
	if err := d.bucket.putAll(ctx, first); err != nil {
		return err
	}
	c := d.bucket.counts()
	d.board.step("the bucket holds %s log files with %s records in %d streams, and %s other objects", thousands(c.objects), thousands(c.records), c.streams, thousands(c.others))

	agent, err := start(d.program, []string{"run", "--config", config},
		[]string{secretVariable + "=" + defaultSecret, tokenVariable + "=" + token}, d.board.log, d.board.log)
	if err != nil {
		return err
	}
	d.agent = agent
	d.board.step("agent started: trailpoll run --config %s", config)

	const beats = 48
	every := time.NewTicker(max(d.live/beats, time.Millisecond))
	defer every.Stop()
	for beat := range beats {
		if err := d.wait(ctx, every.C); err != nil {
			return err
		}
		if err := d.bucket.putAll(ctx, live[len(live)*beat/beats:len(live)*(beat+1)/beats]); err != nil {
			return err
		}
		if beat == 0 {
			d.board.step("new log files keep coming")
		}
		if beat == beats/2 {
			d.https.expectLate(&late)
			d.syslog.expectLate(&late)
			d.lateIn = time.Now()
			if err := d.bucket.put(ctx, &late); err != nil {
				return err
			}
			d.board.step("a late object: its name says %s, its stream is %s further on", late.Stamp.Format("15:04"), span(newest(first, live, &late).Sub(late.Stamp)))
		}
	}
	d.board.step("no more new log files")
	return d.silence(ctx)
}

// objects makes the sample logs: what is there at the start, what comes while
// the agent works, and one whose stamp is hours older than all of them.
func (d *show) objects() (first, live []corpus.Object, late corpus.Object) {
	c := corpus.New(d.seed)
	now := time.Now().UTC()
	// A slot of five minutes brings about 38 log files from nine streams.
	slots := d.logs/38 + 1
	t := corpus.Traffic{Layout: layout(), Slots: 10 * slots, From: now.Add(-time.Duration(slots) * 5 * time.Minute), Clutter: true}
	logs := 0
	var all []corpus.Object
	for o := range c.Objects(t) {
		all = append(all, o)
		if o.Kind == corpus.Log {
			logs++
		}
		if logs == d.logs-1 {
			break
		}
	}
	// They come as they appear, which is not how their names sort.
	slices.SortStableFunc(all, func(a, b corpus.Object) int { return a.AppearsAt.Compare(b.AppearsAt) })
	early := corpus.Traffic{
		Layout: layout(), From: now.Add(-lookBack + 2*time.Hour), Slots: 1, FilesPerSlot: 1, OneTrail: true,
		Accounts: 1, Regions: corpus.Regions()[:1], LogTypes: []string{corpus.CloudTrail},
	}
	for late = range c.Objects(early) {
		break
	}
	return all[:len(all)*3/5], all[len(all)*3/5:], late
}

// newest is the latest stamp in the late object's stream.
func newest(first, live []corpus.Object, late *corpus.Object) (stamp time.Time) {
	for _, o := range slices.Concat(first, live) {
		if o.Account == late.Account && o.Region == late.Region && o.LogType == late.LogType && o.Stamp.After(stamp) {
			stamp = o.Stamp
		}
	}
	return stamp
}

// wait waits for a tick; the end of the agent or of the time is an error.
func (d *show) wait(ctx context.Context, tick <-chan time.Time) error {
	select {
	case <-tick:
		return nil
	case <-d.agent.ended:
		return fmt.Errorf("the agent ended by itself: %w", errors.Join(d.agent.err, errors.New(d.board.lastLog())))
	case <-ctx.Done():
		return fmt.Errorf("waiting for the agent: %w\n%s", ctx.Err(), d.board.lastLog())
	}
}

// silence waits until both receivers have as many records as were written and
// nothing more has come for a while.
func (d *show) silence(ctx context.Context) error {
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	had, since := -1, time.Now()
	for {
		if err := d.wait(ctx, every.C); err != nil {
			return err
		}
		written, a, b := d.bucket.counts().records, d.https.tally.Received(), d.syslog.tally.Received()
		if a < written || b < written || a+b != had {
			had, since = a+b, time.Now()
			continue
		}
		if time.Since(since) >= d.quiet {
			return nil
		}
	}
}

// stopAgent sends SIGTERM and wants exit code 0.
func (d *show) stopAgent() error {
	select {
	case <-d.agent.ended:
		return nil // play has said so
	default:
	}
	began := time.Now()
	if err := d.agent.stop(25 * time.Second); err != nil {
		return fmt.Errorf("stopping the agent: %w\n%s", err, d.board.lastLog())
	}
	d.board.step("SIGTERM: the agent ended with exit code 0 after %s", span(time.Since(began)))
	return nil
}

// count shows the result of each output; anything but a whole one is an error.
func (d *show) count() error {
	if d.bucket == nil {
		return nil
	}
	var faults []error
	for _, s := range []*sink{d.https, d.syslog} {
		r := s.tally.Result()
		if !r.Whole() {
			faults = append(faults, fmt.Errorf("%s: %s", s.name, r))
		}
		at, bad := s.lateArrival()
		if bad != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.name, bad))
		}
		switch {
		case d.lateIn.IsZero():
		case at.IsZero():
			faults = append(faults, fmt.Errorf("%s: the late object did not arrive whole", s.name))
		default:
			d.board.step("%s had the late object %s after it was written", s.name, span(at.Sub(d.lateIn)))
		}
	}
	d.board.result(len(faults) == 0)
	return errors.Join(faults...)
}
