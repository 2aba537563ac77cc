package syslog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

const (
	// relpWindow is how many frames may be without an answer. RELP sets no
	// number; librelp, which most receivers are made with, sends 128 ahead. More
	// than a batch of ours, so that a batch costs one round trip.
	relpWindow = 1024
	// relpFarewell is how long the receiver may take to answer that the session
	// ends. Nothing is outstanding by then.
	relpFarewell = time.Second
)

// relp sends frames over one RELP session at a time. A batch is acknowledged
// when the receiver has answered each of its frames.
type relp struct {
	turns
	route    *route
	format   *formatter
	version  string
	window   int
	session  *session // nil until needed; kept when broken, until the next is made
	suspects suspects
}

// write sends the batch and waits for all answers, so that its confirmation is
// always nil: there is nothing more to wait for.
func (r *relp) write(ctx context.Context, b *record.Batch) (record.Confirmation, error) {
	ctx, done, err := r.take(ctx)
	if err != nil {
		return nil, &fault.Error{Op: r.route.op(), Err: err}
	}
	defer done()
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	out, err := r.deliver(ctx, b)
	if err != nil {
		// A crash here, or this error: what the receiver has answered of the
		// batch comes again, and nothing else.
		if ctx.Err() == nil {
			r.route.leave()
		}
		err = r.session.failed(err)
		r.drop()
		return nil, err
	}
	r.suspects.works()
	return nil, out.err(r.session.t.op)
}

// deliver sends the batch, and of what is suspected one after the other.
func (r *relp) deliver(ctx context.Context, b *record.Batch) (leftOut, error) {
	var last, never, first []int // nil: all
	if !r.suspects.idle() {
		last, never = r.suspects.of(b)
		first = except(len(b.Records), last, never)
	}
	r.session.window = r.suspects.window(r.window)
	blame := func(err error, alone bool) {
		if ctx.Err() == nil && receiverBroke(err) {
			r.suspects.broke(r.session.unanswered(b), alone)
		}
	}
	var out leftOut
	if err := r.session.send(ctx, r.format, b, first, &out); err != nil {
		blame(err, false)
		return leftOut{}, err
	}
	for _, i := range last {
		if err := r.session.send(ctx, r.format, b, []int{i}, &out); err != nil {
			blame(err, true)
			return leftOut{}, err
		}
	}
	for _, i := range never {
		out.refused(fault.RecordRefusal{Index: i, Answer: guilty(&b.Records[i])})
	}
	return out, nil
}

// connect sees to it that there is a session.
func (r *relp) connect(ctx context.Context) error {
	if r.session != nil && r.session.broken() != nil {
		r.drop() // nothing was outstanding
	}
	open := func(ctx context.Context, t *target) error {
		s, err := r.open(ctx, t)
		if err != nil {
			return err
		}
		if r.session != nil {
			_ = r.session.close() // nothing is outstanding there
		}
		r.session = s
		return nil
	}
	if r.session == nil {
		return r.route.connect(ctx, open)
	}
	r.route.goHome(ctx, open)
	return nil
}

// drop forgets a session that is broken.
func (r *relp) drop() {
	r.session.end()
	r.session = nil
}

func (r *relp) close() error {
	r.stop() // a batch under way ends
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == nil {
		return nil
	}
	err := r.session.close()
	r.session = nil
	return err
}

// open connects and agrees on what is spoken.
func (r *relp) open(ctx context.Context, t *target) (*session, error) {
	w, err := t.dial(ctx, r.route.timeout)
	if err != nil {
		return nil, err
	}
	s := &session{wire: w, window: r.window, next: 1, news: make(chan struct{}, 1)}
	s.listen(func() { s.fail(s.read()) })
	offers := "relp_version=0\nrelp_software=trailpoll," + r.version + ",https://github.com/trailpoll/trailpoll\ncommands=syslog"
	a, err := s.command(ctx, "open", offers)
	if err == nil {
		err = accepts(t, a)
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
			err = &fault.Error{
				Op: t.op, Err: fmt.Errorf("the receiver does not answer RELP's opening: %w", err),
				Hint: t.addr + " takes connections and says nothing: check that RELP is spoken there, and not plain syslog",
			}
		}
		err = s.failed(err)
		s.end()
		return nil, err
	}
	t.tls.Works()
	return s, nil
}

// accepts looks at the answer to the opening.
func accepts(t *target, a answer) error {
	if a.code != 200 {
		return &fault.Error{
			Kind: fault.Held, Op: t.op, Err: fmt.Errorf("opening a RELP session: %v", a),
			Hint: "the receiver does not let us in: look into its own log",
		}
	}
	if yes, found := a.offers("commands", "syslog"); found && !yes {
		return &fault.Error{
			Kind: fault.Held, Op: t.op, Err: errors.New("opening a RELP session: the receiver offers no command syslog"),
			Hint: "set the receiver up to take syslog over RELP",
		}
	}
	return nil
}

// session is one RELP connection. Frames are written by whoever holds relp.mu;
// answers are read by a goroutine of its own, so that a receiver which has to
// answer before it reads on is never waited for.
type session struct {
	*wire
	window int
	next   int           // the number of the next frame
	news   chan struct{} // capacity 1: something came, or the session is broken

	mu     sync.Mutex
	flight flight
	err    error // why it is broken
}

// flight is the frames of one batch that were written so far. Their numbers
// follow one another.
type flight struct {
	first   int   // the number of the first
	records []int // which record of the batch each is, or answered
	open    int   // how many are not answered
	refused []refusal
	last    answer
}

const answered = -1

// begin makes room for a new flight; the one before has landed.
func (s *session) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = flight{first: s.next, records: s.flight.records[:0]}
}

// number gives the next frame its number and notes that it waits for an answer.
func (s *session) number(record int) (txnr int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	txnr = s.next
	if s.next++; s.next > maxTxnr {
		s.next = 1
	}
	s.flight.records = append(s.flight.records, record)
	s.flight.open++
	return txnr
}

// take notes the answer to a frame.
func (s *session) take(txnr int, a answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.flight
	at := txnr - f.first
	if at < 0 { // the numbers began anew
		at += maxTxnr
	}
	if at >= len(f.records) || f.records[at] == answered {
		return noRELP(fmt.Sprintf("frame %d is answered and waits for none", txnr))
	}
	if a.code != 200 {
		f.refused = append(f.refused, refusal{f.records[at], a})
	}
	f.records[at], f.last = answered, a
	f.open--
	return nil
}

// read reads answers until the session ends.
func (s *session) read() error {
	in := bufio.NewReader(s.conn)
	for {
		if in.Buffered() == 0 {
			quickAck(s.raw.Conn)
		}
		f, err := readRELP(in)
		if err != nil {
			return err
		}
		switch {
		case f.txnr == 0 && f.command == "serverclose":
			return errServerClose
		case f.txnr == 0: // a hint that we don't know
			continue
		case f.command != "rsp":
			return noRELP(fmt.Sprintf("a command %q", f.command))
		}
		a, err := parseAnswer(f.data)
		if err == nil {
			err = s.take(f.txnr, a)
		}
		if err != nil {
			return err
		}
		s.tell()
	}
}

var errServerClose = errors.New("the receiver ended the session")

func (s *session) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// fail breaks the session; the first call counts.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = peerClosed(err)
	}
	s.mu.Unlock()
	_ = s.raw.Close() // it is broken already
	s.tell()
}

func (s *session) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// failed makes the error of a session that broke.
func (s *session) failed(err error) error {
	if errors.Is(err, errNoRELP) {
		return &fault.Error{
			Kind: fault.Held, Op: s.t.op, Err: err,
			Hint: "check the port, and whether the receiver expects TLS there (transport = \"relp-tls\")",
		}
	}
	return s.t.failed(err)
}

// await waits until at most most frames are without an answer. What was
// answered counts, also when the session broke after it.
func (s *session) await(ctx context.Context, most int) error {
	timer := time.NewTimer(s.raw.timeout)
	defer timer.Stop()
	for {
		s.mu.Lock()
		open, err := s.flight.open, s.err
		s.mu.Unlock()
		switch {
		case open <= most:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-s.news:
			timer.Reset(s.raw.timeout)
		case <-timer.C:
			return fmt.Errorf("the receiver answered nothing for %v: %w", s.raw.timeout, os.ErrDeadlineExceeded)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unanswered returns the first record that waits for an answer, nil for none.
func (s *session) unanswered(b *record.Batch) *record.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.flight.records {
		if i != answered {
			return &b.Records[i]
		}
	}
	return nil
}

// send writes the frames of the batch's records that only names (nil: all) and
// adds to out, when all are answered, those that were left out or refused. After
// an error the session is broken.
func (s *session) send(ctx context.Context, f *formatter, b *record.Batch, only []int, out *leftOut) error {
	defer s.raw.during(ctx)()
	s.begin()
	for i := range b.Records {
		if only != nil && !slices.Contains(only, i) {
			continue
		}
		if why, kind := f.message(&b.Records[i]); why != "" {
			out.add(i, why, kind)
			continue
		}
		if len(s.flight.records) >= s.window { // only then can it be reached
			if err := s.flush(ctx, s.window-1); err != nil {
				return err
			}
		}
		if _, err := s.w.Write(f.relp(s.number(i))); err != nil {
			return s.broke(ctx, err)
		}
	}
	if err := s.flush(ctx, 0); err != nil {
		return err
	}
	out.refused(refusals(s.flight.refused, b)...)
	return nil
}

// flush sends what was written and waits as await does.
func (s *session) flush(ctx context.Context, most int) error {
	s.mu.Lock()
	waiting := s.flight.open > most
	s.mu.Unlock()
	if !waiting {
		return nil
	}
	if err := s.w.Flush(); err != nil {
		return s.broke(ctx, err)
	}
	if err := s.await(ctx, most); err != nil {
		s.fail(err)
		return err
	}
	return nil
}

// broke breaks the session because a write failed, and says why it did.
func (s *session) broke(ctx context.Context, err error) error {
	err = s.why(ctx, err, s.broken)
	s.fail(err)
	return err
}

// command sends a command of the session itself and returns its answer.
func (s *session) command(ctx context.Context, name, data string) (answer, error) {
	defer s.raw.during(ctx)()
	s.begin()
	head := appendRELP(nil, s.number(0), name, len(data))
	if _, err := s.w.Write(append(append(head, data...), '\n')); err != nil {
		return answer{}, s.broke(ctx, err)
	}
	if err := s.flush(ctx, 0); err != nil {
		return answer{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flight.last, nil
}

// close ends the session in order. What the receiver answers makes no
// difference any more.
func (s *session) close() error {
	if s.broken() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), relpFarewell)
		defer cancel()
		_, _ = s.command(ctx, "close", "")
	}
	return s.wire.close()
}

// relp returns the message that was made last as a RELP frame.
func (f *formatter) relp(txnr int) []byte {
	var head [frameRoom]byte
	f.buf = append(f.buf, '\n')
	return f.behind(appendRELP(head[:0], txnr, "syslog", len(f.buf)-frameRoom-1))
}
