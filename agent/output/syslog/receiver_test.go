package syslog

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/trailpoll/trailpoll/agent/output/outputtest"
)

// message is a syslog message, taken apart.
type message struct {
	pri                            int
	time, host, app, procid, msgid string
	params                         map[string][]string // "element/name"
	msg                            []byte
}

var headerRE = regexp.MustCompile(`^<(\d{1,3})>1 (-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ` +
	`([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)

// parseMessage reads a message by the letter of RFC 5424, without any of the
// code under test. It refuses what a receiver might stumble over, too: control
// characters anywhere before the record.
func parseMessage(b []byte) (m message, err error) {
	h := headerRE.FindSubmatch(b)
	if h == nil {
		return m, fmt.Errorf("no header: %.200q", b)
	}
	m.pri, _ = strconv.Atoi(string(h[1]))
	if m.pri > 191 {
		return m, fmt.Errorf("PRI %d", m.pri)
	}
	m.time, m.host, m.app, m.procid, m.msgid = string(h[2]), string(h[3]), string(h[4]), string(h[5]), string(h[6])
	b = b[len(h[0]):]
	m.params = map[string][]string{}
	name := func(end string) (string, error) {
		i := bytes.IndexAny(b, end)
		if i < 1 || i > 32 {
			return "", fmt.Errorf("no name of 1 to 32 characters: %.100q", b)
		}
		n := string(b[:i])
		for _, c := range []byte(n) {
			if c <= ' ' || c >= 0x7f || c == '=' || c == ']' || c == '"' {
				return "", fmt.Errorf("bad name %q", n)
			}
		}
		b = b[i:]
		return n, nil
	}
	for len(b) > 0 && b[0] == '[' {
		b = b[1:]
		element, err := name(" ]")
		if err != nil {
			return m, err
		}
		for len(b) > 0 && b[0] == ' ' {
			b = b[1:]
			param, err := name("=")
			if err != nil {
				return m, err
			}
			if !bytes.HasPrefix(b, []byte(`="`)) {
				return m, fmt.Errorf("no value: %.100q", b)
			}
			b = b[2:]
			var val []byte
			for {
				if len(b) == 0 {
					return m, errors.New("value without an end")
				}
				c := b[0]
				if c == '"' {
					break
				}
				if c < ' ' || c == 0x7f || c == ']' {
					return m, fmt.Errorf("%q in a value", c)
				}
				if c == '\\' {
					if len(b) < 2 || !slices.Contains([]byte(`"\]`), b[1]) {
						return m, fmt.Errorf("escape of nothing: %.20q", b)
					}
					b = b[1:]
				}
				val = append(val, b[0])
				b = b[1:]
			}
			b = b[1:]
			if !utf8.Valid(val) || bytes.ContainsAny(val, "\u0085\u2028\u2029\u202e") {
				return m, fmt.Errorf("value %q is no printable text", val)
			}
			m.params[element+"/"+param] = append(m.params[element+"/"+param], string(val))
		}
		if len(b) == 0 || b[0] != ']' {
			return m, fmt.Errorf("element %s without an end: %.100q", element, b)
		}
		b = b[1:]
	}
	if len(m.params) == 0 {
		return m, errors.New("no structured data")
	}
	if len(b) == 0 || b[0] != ' ' {
		return m, fmt.Errorf("no space before the record: %.100q", b)
	}
	m.msg = b[1:]
	return m, nil
}

var bsdRE = regexp.MustCompile(`^<(\d{1,3})>([A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d) ([0-9A-Za-z._:-]{1,255}) (?:([0-9A-Za-z._/-]{1,32}): |CEF:)`)

// parseBSD reads a message by the letter of RFC 3164.
func parseBSD(b []byte) (m message, err error) {
	h := bsdRE.FindSubmatch(b)
	if h == nil {
		return m, fmt.Errorf("no header: %.200q", b)
	}
	m.pri, _ = strconv.Atoi(string(h[1]))
	m.time, m.host, m.app = string(h[2]), string(h[3]), string(h[4])
	if _, err := time.Parse(time.Stamp, m.time); err != nil {
		return m, err
	}
	if m.msg = b[len(h[0]):]; m.app == "" {
		m.msg = b[len(h[0])-len("CEF:"):]
	}
	return m, nil
}

// parse reads a message of a format.
func parse(style MessageFormat, b []byte) (message, error) {
	if style == RFC3164 {
		return parseBSD(b)
	}
	return parseMessage(b)
}

// relpFraming makes a receiver speak RELP.
const relpFraming Framing = "relp"

// receiver is a syslog server over TCP, TLS or RELP, with faults.
type receiver struct {
	outputtest.Inbox
	t       *testing.T
	addr    string
	tls     *tls.Config // nil for plain TCP
	framing Framing
	style   MessageFormat
	// answer, with RELP, is what a message is answered; nil = "200 OK".
	answer func(msg []byte) string

	mu    sync.Mutex
	fault outputtest.Fault
	came  int // connections
	ln    net.Listener
	conns map[net.Conn]bool
	wg    sync.WaitGroup
	wire  bytes.Buffer // all bytes that were taken
}

func newReceiver(t *testing.T, framing Framing, conf *tls.Config, style ...MessageFormat) *receiver {
	r := &receiver{t: t, style: append(style, RFC5424)[0], addr: "127.0.0.1:0", framing: framing, tls: conf, conns: map[net.Conn]bool{}}
	r.listen()
	t.Cleanup(r.shut)
	return r
}

func (r *receiver) listen() {
	ln, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Errorf("listening: %v", err)
		return
	}
	r.ln, r.addr = ln, ln.Addr().String()
	r.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			raw := conn
			if r.tls != nil {
				conn = tls.Server(conn, r.tls)
			}
			r.mu.Lock()
			r.conns[raw] = true
			r.came++
			f := r.fault
			r.mu.Unlock()
			r.wg.Go(func() {
				r.serve(raw, conn, f)
				r.mu.Lock()
				delete(r.conns, raw)
				r.mu.Unlock()
			})
		}
	})
}

func (r *receiver) shut() {
	if r.ln != nil {
		_ = r.ln.Close()
		r.ln = nil
	}
	r.reset()
	r.wg.Wait()
}

// reset breaks all connections.
func (r *receiver) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		reset(c)
	}
}

func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func (r *receiver) Fail(f outputtest.Fault) {
	r.mu.Lock()
	r.fault = f
	r.mu.Unlock()
	if f.Mode == outputtest.Refuse {
		r.shut()
		return
	}
	if f.Mode != outputtest.None {
		r.reset() // so that the fault is met on a new connection
	}
	if r.ln == nil {
		r.listen()
	}
}

func (r *receiver) serve(raw, conn net.Conn, f outputtest.Fault) {
	defer func() { _ = raw.Close() }()
	if f.Mode == outputtest.ResetBefore {
		reset(raw)
		return
	}
	if c, ok := conn.(*tls.Conn); ok && c.Handshake() != nil {
		return // the other side is told why
	}
	if r.framing == relpFraming {
		if err := r.serveRELP(raw, conn, f); err != nil && !errors.Is(err, io.EOF) && !isConnError(err) {
			r.t.Errorf("RELP: %v", err)
		}
		return
	}
	in := bufio.NewReader(conn)
	for {
		frame, wire, err := readFrame(in, r.framing)
		if err != nil {
			if !errors.Is(err, io.EOF) && !isConnError(err) {
				r.t.Errorf("reading a frame: %v", err)
			}
			return
		}
		m, err := parse(r.style, frame)
		if err != nil {
			r.t.Errorf("TestInvariant11: %v", err)
			return
		}
		r.mu.Lock()
		r.wire.Write(wire)
		r.mu.Unlock()
		r.Put(m.msg)
		if f.Mode == outputtest.ResetAfter {
			reset(raw)
			return
		}
	}
}

// connections is how many came.
func (r *receiver) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.came
}

func (r *receiver) setAnswer(answer func(msg []byte) string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// serveRELP reads RELP by the letter, without any of the code under test.
func (r *receiver) serveRELP(raw, conn net.Conn, f outputtest.Fault) error {
	in := bufio.NewReader(conn)
	want := 1
	for {
		head, err := in.ReadString(' ')
		if err != nil {
			return err
		}
		if head != strconv.Itoa(want)+" " {
			return fmt.Errorf("frame %q, want %d", head, want)
		}
		want++
		command, err := in.ReadString(' ')
		if err != nil {
			return err
		}
		var digits []byte
		var end byte
		for {
			if end, err = in.ReadByte(); err != nil {
				return err
			}
			if end < '0' || end > '9' {
				break
			}
			digits = append(digits, end)
		}
		n, err := strconv.Atoi(string(digits))
		if err != nil || len(digits) > 9 {
			return fmt.Errorf("length %q", digits)
		}
		data := make([]byte, n)
		if n > 0 {
			if end != ' ' {
				return fmt.Errorf("%q before the data", end)
			}
			if _, err := io.ReadFull(in, data); err != nil {
				return err
			}
			if end, err = in.ReadByte(); err != nil {
				return err
			}
		}
		if end != '\n' {
			return fmt.Errorf("%q at the end of a frame", end)
		}
		say := "200 OK"
		switch command {
		case "open ":
			if !bytes.HasPrefix(data, []byte("relp_version=0\nrelp_software=trailpoll,")) || !bytes.HasSuffix(data, []byte("\ncommands=syslog")) {
				return fmt.Errorf("offers %q", data)
			}
			say = "200 OK\nrelp_version=0\nrelp_software=test,1,http://example.com\ncommands=syslog"
			if f.Mode == outputtest.Status {
				say = strconv.Itoa(f.Status) + " no"
			}
		case "close ":
			if _, err := fmt.Fprintf(conn, "%srsp 0\n0 serverclose 0\n", head); err != nil {
				return err
			}
			return nil
		case "syslog ":
			m, err := parse(r.style, data)
			if err != nil {
				return fmt.Errorf("TestInvariant11: %w", err)
			}
			r.mu.Lock()
			answer := r.answer
			r.mu.Unlock()
			if answer != nil {
				say = answer(m.msg)
			}
			if strings.HasPrefix(say, "200") {
				r.mu.Lock()
				fmt.Fprintf(&r.wire, "%s%s%d %s\n", head, command, n, data)
				r.mu.Unlock()
				r.Put(m.msg)
			}
			switch f.Mode {
			case outputtest.ResetAfter:
				reset(raw)
				return nil
			case outputtest.Hang:
				continue
			}
		default:
			return fmt.Errorf("command %q", command)
		}
		if _, err := fmt.Fprintf(conn, "%srsp %d %s\n", head, len(say), say); err != nil {
			return err
		}
	}
}

func isConnError(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF)
}

// readFrame reads one frame (RFC 6587 section 3.4).
func readFrame(in *bufio.Reader, framing Framing) (frame, wire []byte, err error) {
	if framing == LF {
		wire, err = in.ReadBytes('\n')
		if err != nil {
			if len(wire) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, err
		}
		return wire[:len(wire)-1], wire, nil
	}
	head, err := in.ReadString(' ')
	if err != nil {
		return nil, nil, err
	}
	n, err := strconv.Atoi(head[:len(head)-1])
	if err != nil || n < 1 || head[0] == '0' {
		return nil, nil, fmt.Errorf("no octet count: %.50q", head)
	}
	frame = make([]byte, n)
	if _, err := io.ReadFull(in, frame); err != nil {
		return nil, nil, err
	}
	return frame, append([]byte(head), frame...), nil
}

// datagramReceiver is a syslog server over UDP.
type datagramReceiver struct {
	outputtest.Inbox
	t     *testing.T
	style MessageFormat
	conn  net.PacketConn
	wire  bytes.Buffer // belongs to serve until it has returned
	wg    sync.WaitGroup
}

func newDatagramReceiver(t *testing.T, style ...MessageFormat) *datagramReceiver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.UDPConn).SetReadBuffer(8 << 20)
	r := &datagramReceiver{t: t, style: append(style, RFC5424)[0], conn: conn}
	r.wg.Go(r.serve)
	t.Cleanup(r.shut)
	return r
}

func (r *datagramReceiver) shut() {
	_ = r.conn.Close()
	r.wg.Wait()
}

func (r *datagramReceiver) Fail(outputtest.Fault) {}

func (r *datagramReceiver) serve() {
	buf := make([]byte, 65536)
	for {
		n, _, err := r.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := parse(r.style, buf[:n])
		if err != nil {
			r.t.Errorf("TestInvariant11: %v", err)
			continue
		}
		r.wire.Write(buf[:n])
		r.wire.WriteString("\n---\n")
		r.Put(m.msg)
	}
}

// listenStuck returns the address of a server that accepts and never reads.
func listenStuck(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return ln.Addr().String()
}
