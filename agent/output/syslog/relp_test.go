package syslog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
)

func TestReadRELP(t *testing.T) {
	long := strings.Repeat("x", maxAnswer+1)
	for _, c := range []struct {
		in   string
		want relpFrame
		err  error // nil = taken
	}{
		{"1 rsp 6 200 OK\n", relpFrame{1, "rsp", []byte("200 OK")}, nil},
		{"999999999 rsp 3 200\n", relpFrame{999999999, "rsp", []byte("200")}, nil},
		{"0 serverclose 0\n", relpFrame{0, "serverclose", nil}, nil},
		{"2 rsp 0\n", relpFrame{2, "rsp", nil}, nil},
		{"2 rsp 0 \n", relpFrame{2, "rsp", []byte{}}, nil},
		{"1 rsp 7 200\na=b\n", relpFrame{1, "rsp", []byte("200\na=b")}, nil},
		{"", relpFrame{}, io.EOF},
		{"1", relpFrame{}, io.ErrUnexpectedEOF},
		{"1 ", relpFrame{}, io.ErrUnexpectedEOF},
		{"1 rsp 6 200", relpFrame{}, io.ErrUnexpectedEOF},
		{"1 rsp 6 200 OK", relpFrame{}, io.ErrUnexpectedEOF},
		{"1 rsp 5 200 OK\n", relpFrame{}, errNoRELP},
		{"1 rsp 6\n", relpFrame{}, errNoRELP},
		{"1\n", relpFrame{}, errNoRELP},
		{" 1 rsp 6 200 OK\n", relpFrame{}, errNoRELP},
		{"1234567890 rsp 6 200 OK\n", relpFrame{}, errNoRELP},
		{"-1 rsp 6 200 OK\n", relpFrame{}, errNoRELP},
		{"1  rsp 6 200 OK\n", relpFrame{}, errNoRELP},
		{"1 r5p 6 200 OK\n", relpFrame{}, errNoRELP},
		{"1 " + strings.Repeat("r", 33) + " 6 200 OK\n", relpFrame{}, errNoRELP},
		{"1 rsp 999999999 x", relpFrame{}, errNoRELP},
		{fmt.Sprintf("1 rsp %d %s\n", len(long), long), relpFrame{}, errNoRELP},
		{"HTTP/1.1 400 Bad Request\r\n", relpFrame{}, errNoRELP},
		{"\x15\x03\x03\x00\x02\x02\x28", relpFrame{}, errNoRELP},
	} {
		f, err := readRELP(bufio.NewReader(strings.NewReader(c.in)))
		if !errors.Is(err, c.err) {
			t.Errorf("%.40q: %v, want %v", c.in, err, c.err)
		}
		if err == nil && (f.txnr != c.want.txnr || f.command != c.want.command || !bytes.Equal(f.data, c.want.data)) {
			t.Errorf("%.40q: %+v", c.in, f)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	for in, want := range map[string]string{
		"200 OK":                           `the receiver answered 200 "OK"`,
		"200":                              `the receiver answered 200`,
		"":                                 `the receiver answered 0`,
		"500 a\x1b[31m\nrelp=1":            `the receiver answered 500 "a\x1b[31m"`,
		"500 " + string(make([]byte, 200)): `the receiver answered 500 "` + strings.Repeat(`\x00`, 120) + `"`,
	} {
		a, err := parseAnswer([]byte(in))
		if err != nil || a.String() != want {
			t.Errorf("%.20q: %s, %v", in, a, err)
		}
	}
	for _, in := range []string{"2", "20", "2000", "abc", "20x OK", " 200"} {
		if _, err := parseAnswer([]byte(in)); !errors.Is(err, errNoRELP) {
			t.Errorf("%q: %v", in, err)
		}
	}
	a, _ := parseAnswer([]byte("200 OK\nrelp_version=0\r\ncommands=eof,syslog\n"))
	if yes, found := a.offers("commands", "syslog"); !yes || !found {
		t.Error("syslog is offered")
	}
	if yes, found := a.offers("commands", "sys"); yes || !found {
		t.Error("sys is not offered")
	}
}

// Whatever a receiver says, it is read to its end or refused, within bounds; and
// what is read says the same again.
func FuzzRELP(f *testing.F) {
	for _, s := range []string{"1 rsp 6 200 OK\n", "0 serverclose 0\n", "1 rsp 20 200 OK\ncommands=sysl\n", "999999999 rsp 3 500\n2 rsp 0\n", "1 rsp 99999 "} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			frame, err := readRELP(r)
			if err != nil {
				return
			}
			if frame.txnr < 0 || frame.txnr > maxTxnr || len(frame.data) > maxAnswer || len(frame.command) > 32 {
				t.Fatalf("%+v", frame)
			}
			if a, err := parseAnswer(frame.data); err == nil && (a.code > 999 || strings.ContainsAny(a.String(), "\n\x00") || len(a.String()) > 600) {
				t.Fatalf("%+v", a)
			}
			wire := append(append(appendRELP(nil, frame.txnr, frame.command, len(frame.data)), frame.data...), '\n')
			again, err := readRELP(bufio.NewReader(bytes.NewReader(wire)))
			if err != nil || again.txnr != frame.txnr || again.command != frame.command || !bytes.Equal(again.data, frame.data) {
				t.Fatalf("%q: %+v, %+v, %v", wire, again, frame, err)
			}
		}
	})
}

// One message that is answered with an error is one record refused; all others
// are taken.
func TestInvariant5_RELPRefusesOne(t *testing.T) {
	in := newReceiver(t, relpFraming, nil)
	in.setAnswer(func(msg []byte) string {
		if bytes.Contains(msg, []byte(`"n-3"`)) || bytes.Contains(msg, []byte(`"n-7"`)) {
			return "500 could not\x1b process message"
		}
		return "200 OK"
	})
	o := open(t, Config{Transport: RELP, Addresses: []string{in.addr}})
	for range 2 {
		err := o.Send(t.Context(), batch(outputtest.Numbered("n", 20)))
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != fault.Refused || len(e.Records) != 2 || e.Records[0].Index != 3 || e.Records[1].Index != 7 ||
			!strings.Contains(e.Records[0].Answer, `500 "could not\x1b process message"`) {
			t.Fatalf("%+v", err)
		}
	}
	if n := len(in.Records()); n != 36 {
		t.Errorf("%d records", n)
	}
	if in.connections() != 1 {
		t.Errorf("%d connections", in.connections())
	}
}

// A receiver says what it has against a message by quoting it: nothing of a
// record gets into the error, in whatever order the answers come.
func TestInvariant10_RELPAnswerQuotesRecords(t *testing.T) {
	in := newReceiver(t, relpFraming, nil)
	in.setAnswer(func(msg []byte) string {
		i := bytes.Index(msg, []byte(`{"`))
		return fmt.Sprintf("500 no room for %.60s here", msg[i:])
	})
	o := open(t, Config{Transport: RELP, Addresses: []string{in.addr}})
	records := outputtest.Numbered("n", 20)
	for i := range records {
		records[i].Raw = fmt.Appendf(nil, `{"password":"hunter2-%04d-secret","eventID":"n-%d"}`, i, i)
	}
	err := o.Send(t.Context(), batch(records))
	refused := fault.RefusalsOf(err)
	if len(refused) != len(records) {
		t.Fatalf("%v", err)
	}
	texts := []string{err.Error()}
	for _, r := range refused {
		if !strings.Contains(r.Answer, "500") || !strings.Contains(r.Answer, "no room for …") {
			t.Errorf("%q", r.Answer)
		}
		texts = append(texts, r.Answer)
	}
	for _, text := range texts {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "secret") || strings.Contains(text, "password") {
			t.Errorf("a record is quoted: %q", text)
		}
	}
}

// No more frames than the window are without an answer, and a batch larger than
// it goes through.
func TestRELPWindow(t *testing.T) {
	in := newReceiver(t, relpFraming, nil)
	o := open(t, Config{Transport: RELP, Addresses: []string{in.addr}})
	r := o.to.(*relp)
	r.window = 7
	if err := r.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := r.session
	var most atomic.Int64
	in.setAnswer(func([]byte) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		most.Store(max(most.Load(), int64(s.flight.open)))
		return "200 OK"
	})
	if err := o.Send(t.Context(), batch(outputtest.Numbered("n", 500))); err != nil {
		t.Fatal(err)
	}
	if n := len(in.Records()); n != 500 || most.Load() > 7 || most.Load() < 2 {
		t.Errorf("%d records, %d at once", n, most.Load())
	}
}

// scripted is a receiver that says what a test tells it to.
func scripted(t *testing.T, serve func(in *bufio.Reader, out net.Conn) error) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if err := serve(bufio.NewReader(c), c); err != nil && !isConnError(err) && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// The numbers begin anew after 999,999,999, and the answers are still told apart.
func TestRELPNumbersBeginAnew(t *testing.T) {
	var seen []int
	addr := scripted(t, func(in *bufio.Reader, out net.Conn) error {
		for {
			f, err := readRELP(in)
			if err != nil {
				return err
			}
			if f.command == "syslog" {
				seen = append(seen, f.txnr)
			}
			code := 200
			if f.txnr == 2 {
				code = 500
			}
			if f.command == "close" {
				return nil
			}
			if _, err := fmt.Fprintf(out, "%d rsp 3 %d\n", f.txnr, code); err != nil {
				return err
			}
		}
	})
	o := open(t, Config{Transport: RELP, Addresses: []string{addr}})
	r := o.to.(*relp)
	if err := r.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.session.next = maxTxnr - 2
	err := o.Send(t.Context(), batch(outputtest.Numbered("n", 6)))
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Refused || len(e.Records) != 1 || e.Records[0].Index != 4 {
		t.Errorf("%+v", err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint([]int{maxTxnr - 2, maxTxnr - 1, maxTxnr, 1, 2, 3}); fmt.Sprint(seen) != want {
		t.Errorf("%v, want %v", seen, want)
	}
}

// What a receiver may do wrong, or rightly and in the way: never nil, and always
// what it means.
func TestInvariant1_RELPMisbehaves(t *testing.T) {
	const hello = "1 rsp 6 200 OK\n"
	for _, c := range []struct {
		name    string
		opening string // the answer to the opening
		then    string // the answer to the first message
		kind    fault.Kind
		in      string // in error or hint
	}{
		{"answers what was not sent", hello, "9 rsp 6 200 OK\n", fault.Held, "is answered and waits for none"},
		{"answers twice", hello, "2 rsp 6 200 OK\n2 rsp 6 200 OK\n", fault.Held, "waits for none"},
		{"answers the hint", hello, "0 rsp 6 200 OK\n0 serverclose 0\n", fault.Temporary, "ended the session"},
		{"answers the opening again", hello, hello, fault.Held, "waits for none"},
		{"closes", hello, "0 serverclose 0\n", fault.Temporary, "ended the session"},
		{"closes after one", hello, "2 rsp 6 200 OK\n0 serverclose 0\n", fault.Temporary, "ended the session"},
		{"sends a command", hello, "1 syslog 1 x\n", fault.Held, `a command "syslog"`},
		{"speaks HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", "", fault.Held, "is no RELP"},
		{"speaks TLS", "\x15\x03\x03\x00\x02\x02\x28", "", fault.Held, "relp-tls"},
		{"refuses", "1 rsp 9 500 no\x1b[m\n", "", fault.Held, `500 "no\x1b[m"`},
		{"knows no syslog", "1 rsp 19 200 OK\ncommands=eof\n", "", fault.Held, "no command syslog"},
		{"says nothing", "", "", fault.Temporary, "plain syslog"},
		{"says nothing later", hello, "", fault.Temporary, "answered nothing for"},
		{"says half", hello, "2 rs", fault.Temporary, "answered nothing for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := scripted(t, func(in *bufio.Reader, out net.Conn) error {
				for _, say := range []string{c.opening, c.then} {
					// The opening spans lines; the second message is not read.
					if _, err := in.ReadString('\n'); err != nil {
						return err
					}
					for n := in.Buffered(); say != c.then && n > 0; n = in.Buffered() {
						_, _ = in.Discard(n)
					}
					if _, err := io.WriteString(out, say); err != nil {
						return err
					}
				}
				_, err := io.Copy(io.Discard, in)
				return err
			})
			o := open(t, Config{Transport: RELP, Addresses: []string{addr}, Timeout: 300 * time.Millisecond})
			err := o.Send(t.Context(), batch(outputtest.Numbered("n", 2)))
			if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error()+" "+fault.HintOf(err), c.in) {
				t.Errorf("%v: %v (%s)", fault.KindOf(err), err, fault.HintOf(err))
			}
			if len(fault.RefusalsOf(err)) > 0 {
				t.Errorf("records are refused: %+v", err)
			}
		})
	}
}

// A receiver that ends an idle session is no trouble.
func TestRELPIdleClose(t *testing.T) {
	in := newReceiver(t, relpFraming, nil)
	o := open(t, Config{Transport: RELP, Addresses: []string{in.addr}})
	for range 3 {
		if err := o.Send(t.Context(), batch(outputtest.Numbered("n", 3))); err != nil {
			t.Fatal(err)
		}
		s := o.to.(*relp).session
		in.reset()
		<-s.ended
	}
	if n := len(in.Records()); n != 9 {
		t.Errorf("%d records", n)
	}
}
