package receivertest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// maxFrame is the longest message that a receiver takes.
const maxFrame = 16 << 20

// SyslogConfig says how a syslog receiver behaves. The zero value takes all
// over TCP.
type SyslogConfig struct {
	// Network is "tcp" or "udp"; "" = tcp.
	Network string
	// Listen is the address; "" = a free port of 127.0.0.1.
	Listen string
	// CA makes TCP into TLS (RFC 5425), with a certificate for localhost and
	// 127.0.0.1.
	CA *CA
	// RequireClient asks for a client certificate of the CA.
	RequireClient bool
	// RELP makes the stream speak RELP: each message is answered after Take.
	RELP bool
	// Take is given each whole message as it came, without its framing. It is
	// called from one goroutine a connection; raw is its to keep. nil = none.
	Take func(raw []byte)
	// Break decides, before the n-th message (from 1, over all connections) is
	// taken, whether the connection is reset instead. nil = never.
	Break func(n int) bool
	// Pace passes after each message; 0 = as fast as can be.
	Pace time.Duration
}

// Syslog is a receiver of syslog over UDP, TCP or TLS, or RELP over the latter.
// On a stream it reads octet counting and line breaks alike (RFC 6587): a digit
// begins a counted frame, anything else a line.
type Syslog struct {
	cfg    SyslogConfig
	addr   string
	ln     net.Listener   // nil with UDP
	pc     net.PacketConn // nil with TCP
	closed context.Context
	close  context.CancelFunc
	wg     sync.WaitGroup

	messages atomic.Int64
	accepted atomic.Int64

	mu       sync.Mutex
	conns    map[net.Conn]bool
	paused   chan struct{} // closed by Resume; nil while not paused
	problems []error
}

// NewSyslog starts a receiver.
func NewSyslog(cfg SyslogConfig) (*Syslog, error) {
	s := &Syslog{cfg: cfg, conns: map[net.Conn]bool{}}
	s.closed, s.close = context.WithCancel(context.Background())
	if cfg.Network == "udp" {
		addr := cfg.Listen
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, fmt.Errorf("opening a receiver's port: %w", err)
		}
		if u, ok := pc.(*net.UDPConn); ok {
			_ = u.SetReadBuffer(8 << 20) // as far as the system allows
		}
		s.pc, s.addr = pc, pc.LocalAddr().String()
		s.wg.Go(s.datagrams)
		return s, nil
	}
	ln, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	s.addr = ln.Addr().String()
	if cfg.CA != nil {
		tc, err := cfg.CA.serverTLS(cfg.RequireClient)
		if err != nil {
			_ = ln.Close()
			return nil, err
		}
		ln = tls.NewListener(ln, tc)
	}
	s.ln = ln
	s.wg.Go(s.accept)
	return s, nil
}

// Addr is the receiver's host and port.
func (s *Syslog) Addr() string { return s.addr }

// Messages is how many whole messages were taken.
func (s *Syslog) Messages() int { return int(s.messages.Load()) }

// Connections is how many connections came in so far.
func (s *Syslog) Connections() int { return int(s.accepted.Load()) }

// Problems are the framing errors so far. A connection that ends in the middle
// of a message is one.
func (s *Syslog) Problems() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.problems...)
}

// Pause stops reading, so that the sender's writes stay in the kernel and then
// block. Connections stay up; a read that has begun still takes what comes.
func (s *Syslog) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused == nil {
		s.paused = make(chan struct{})
	}
}

// Resume goes on after Pause.
func (s *Syslog) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused != nil {
		close(s.paused)
		s.paused = nil
	}
}

// Reset breaks all connections with a TCP reset; what was not yet read is lost.
func (s *Syslog) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		reset(c)
	}
}

func reset(c net.Conn) {
	raw := c
	if t, ok := c.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	if t, ok := raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = raw.Close()
}

// Close ends the receiver at once and closes what is open.
func (s *Syslog) Close() error {
	s.close()
	var err error
	if s.pc != nil {
		err = s.pc.Close()
	}
	if s.ln != nil {
		err = s.ln.Close()
	}
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (s *Syslog) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		if s.closed.Err() != nil { // Close may have looked before
			_ = c.Close()
		}
		s.accepted.Add(1)
		s.wg.Go(func() {
			err := s.stream(c)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
			_ = c.Close()
			if err != nil && s.closed.Err() == nil {
				s.problems = append(s.problems, err)
			}
		})
	}
}

// stream reads one connection to its end.
func (s *Syslog) stream(c net.Conn) error {
	in := bufio.NewReaderSize(gated{c, s}, 64<<10)
	if s.cfg.RELP {
		return s.relp(c, in)
	}
	for {
		first, err := in.Peek(1)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a frame: %w", err)
		}
		var raw []byte
		if first[0] >= '0' && first[0] <= '9' {
			raw, err = counted(in)
		} else if raw, err = in.ReadBytes('\n'); err == nil {
			raw = raw[:len(raw)-1]
		}
		if err != nil {
			return fmt.Errorf("reading a frame: %w", err)
		}
		if !s.take(raw) {
			reset(c)
			return nil
		}
	}
}

// counted reads `LEN SP MESSAGE` (RFC 6587, section 3.4.1).
func counted(in *bufio.Reader) ([]byte, error) {
	var digits []byte
	for {
		c, err := in.ReadByte()
		if err != nil {
			return nil, noEOF(err)
		}
		if c == ' ' {
			break
		}
		if c < '0' || c > '9' || len(digits) == 8 {
			return nil, fmt.Errorf("no octet count: %q", append(digits, c))
		}
		digits = append(digits, c)
	}
	n, err := strconv.Atoi(string(digits))
	if err != nil || digits[0] == '0' || n > maxFrame {
		return nil, fmt.Errorf("octet count %q", digits)
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(in, raw); err != nil {
		return nil, noEOF(err)
	}
	return raw, nil
}

// noEOF makes an end in the middle of a frame an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *Syslog) datagrams() {
	buf := make([]byte, 64<<10)
	for {
		s.gate()
		n, _, err := s.pc.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		s.take(append([]byte(nil), buf[:n]...))
	}
}

// take counts and hands on one message, and reports whether to go on.
func (s *Syslog) take(raw []byte) bool {
	n := int(s.messages.Add(1))
	if s.cfg.Break != nil && s.cfg.Break(n) {
		s.messages.Add(-1)
		return false
	}
	if s.cfg.Take != nil {
		s.cfg.Take(raw)
	}
	if s.cfg.Pace > 0 {
		timer := time.NewTimer(s.cfg.Pace)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.closed.Done():
		}
	}
	return true
}

// gate blocks while the receiver is paused.
func (s *Syslog) gate() {
	s.mu.Lock()
	paused := s.paused
	s.mu.Unlock()
	if paused == nil {
		return
	}
	select {
	case <-paused:
	case <-s.closed.Done():
	}
}

// gated reads from a connection while the receiver isn't paused.
type gated struct {
	net.Conn
	s *Syslog
}

func (g gated) Read(p []byte) (int, error) {
	g.s.gate()
	return g.Conn.Read(p)
}
