// Package syslog sends records to a syslog receiver, one message a record (RFC
// 5424 or RFC 3164), over UDP (RFC 5426), TCP (RFC 6587), TLS (RFC 5425), RELP
// or RELP over TLS.
//
// A message of RFC 5424 is
//
//	<PRI>1 TIMESTAMP HOSTNAME APP-NAME - LOGTYPE [trailpoll@32473 id="…" account="…" region="…" bucket="…" key="…"] RECORD
//
// with the event's time, the log type as MSGID, and the record's bytes as they
// are, or what a Renderer makes of them. The record's identity and where it
// came from travel as structured data; labels, where there are any, in an
// element labels@32473. (32473 is the enterprise number that RFC 5612 sets aside
// for documentation: trailpoll has none of its own.) A message of RFC 3164 is
//
//	<PRI>Mmm dd hh:mm:ss HOSTNAME APP-NAME: RECORD
//
// with the event's time in UTC, and has no place for more. A record in CEF
// stands where the tag would.
//
// What acknowledges a batch:
//
//   - UDP: nothing does. A batch is settled when it is written, and what the
//     network or the receiver drops is lost.
//   - TCP and TLS: a write says only that this machine's kernel has the bytes.
//     A batch is confirmed when the peer's kernel has acknowledged its last
//     byte (bytes written − the socket's queue ≥ its end) and the connection
//     stayed up for the confirm delay after that. Where the system can't tell
//     what the peer has, three delays after the write. When the connection
//     breaks, all that is not confirmed is to be sent again. A receiver that
//     hangs for longer than the delay and then dies loses what it had not read.
//   - RELP: the receiver answers each message when it has taken it. A batch is
//     acknowledged when all its messages are answered; a message that is answered
//     with an error is refused by itself.
//
// A message longer than the limit is not sent and never cut: the batch's error
// is fault.TooLarge and names the records, all others being taken and
// acknowledged.
//
// With several addresses the first is used. When it can't be reached, or a
// connection to it breaks with something outstanding, the next is, and so on
// around; whichever works is kept. Ten minutes after the first was left it is
// tried again.
package syslog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Transport is how messages travel.
type Transport string

// The transports.
const (
	UDP     Transport = "udp"
	TCP     Transport = "tcp"
	TLS     Transport = "tls"
	RELP    Transport = "relp"
	RELPTLS Transport = "relp-tls"
)

// Framing is how a stream is parted into messages (RFC 6587 section 3.4). UDP
// needs none: a datagram is a message. RELP has its own.
type Framing string

// The framings.
const (
	OctetCounting Framing = "octet-counting" // each message after its length and a space
	LF            Framing = "lf"             // a line feed after each message
)

// maxDatagram is the most that a datagram over IPv4 carries: 65,535 bytes less
// the headers of IP and UDP.
const maxDatagram = 65535 - 20 - 8

// Config describes an Output.
type Config struct {
	// Addresses are host:port; several are for failing over.
	Addresses     []string
	Transport     Transport
	Framing       Framing       // of TCP and TLS; "" = OctetCounting
	MessageFormat MessageFormat // "" = RFC5424

	Facility string // "" = local0
	Severity string // "" = info
	AppName  string // "" = cloudtrail
	Hostname string // "" = this machine's name

	// MaxMessage is the longest message in bytes, without its framing; 0 =
	// 64 KiB. Over UDP at most 65,507.
	MaxMessage int
	// ConfirmDelay is how long a connection must stay up before what it took is
	// confirmed; 0 = as soon as the peer's kernel has it.
	ConfirmDelay time.Duration
	// Timeout bounds connecting, and how long the receiver may take nothing
	// while a batch is written or waits to be confirmed; 0 = 30 s.
	Timeout time.Duration

	// Render makes of each record what is sent; nil = the record as it is.
	Render Renderer
	// Version is the program's, which RELP tells the receiver; "" = 0.
	Version string

	TLS tlsconf.Config // with TLS and RELPTLS
}

// Output sends to one receiver at a time over one connection. Its methods may be called
// from any goroutine, but batches are written one after another.
type Output struct {
	to sender
}

// sender is one way to send.
type sender interface {
	write(ctx context.Context, b *record.Batch) (record.Confirmation, error)
	close() error
}

// New returns the output that conf describes. It opens no connection and
// starts no goroutine: the first batch does.
func New(conf Config) (*Output, error) {
	o, err := conf.output()
	if err != nil {
		return nil, fmt.Errorf("setting up a syslog output: %w", err)
	}
	return o, nil
}

func (c Config) output() (*Output, error) {
	targets, err := c.targetsOf()
	if err != nil {
		return nil, err
	}
	if c.MaxMessage < 0 || c.ConfirmDelay < 0 || c.Timeout < 0 {
		return nil, errors.New("max_message, confirm_delay and timeout can't be negative")
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 64 << 10
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	f, err := c.formatter()
	if err != nil {
		return nil, err
	}
	r := &route{targets: targets, timeout: c.Timeout, home: homeAfter}
	if c.Transport != TCP && c.Transport != TLS && c.Framing != "" {
		return nil, fmt.Errorf("framing %q has no meaning over %s: leave it out", c.Framing, c.Transport)
	}
	switch c.Transport {
	case UDP:
		f.limit = min(f.limit, maxDatagram)
		return &Output{&datagrams{route: r, format: f}}, nil
	case TCP, TLS:
		if f.framing = c.Framing; f.framing == "" {
			f.framing = OctetCounting
		}
		return &Output{&stream{turns: newTurns(), route: r, format: f, delay: c.ConfirmDelay}}, nil
	default:
		version := clean(c.Version, 40, "0", func(b byte) bool { return alnum(b) || b == '.' || b == '-' || b == '+' })
		return &Output{&relp{turns: newTurns(), route: r, format: f, version: version, window: relpWindow}}, nil
	}
}

func (c Config) formatter() (*formatter, error) {
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	facility, ok := facilities[or(c.Facility, "local0")]
	if !ok {
		return nil, fmt.Errorf("facility %q is none of RFC 5424: use one like local0, user, daemon or auth", c.Facility)
	}
	severity, ok := severities[or(c.Severity, "info")]
	if !ok {
		return nil, fmt.Errorf("severity %q is none of emerg, alert, crit, err, warning, notice, info, debug", c.Severity)
	}
	style := c.MessageFormat
	switch style {
	case "":
		style = RFC5424
	case RFC5424, RFC3164:
	default:
		return nil, fmt.Errorf("message_format %q is neither rfc5424 nor rfc3164", style)
	}
	switch c.Framing {
	case "", OctetCounting, LF:
	default:
		return nil, fmt.Errorf("framing %q is neither octet-counting nor lf", c.Framing)
	}
	switch c.Transport {
	case UDP, TCP, TLS, RELP, RELPTLS:
	default:
		return nil, fmt.Errorf("transport %q is none of udp, tcp, tls, relp, relp-tls", c.Transport)
	}
	hostname := c.Hostname
	if hostname == "" {
		hostname, _ = os.Hostname() // nameless: "-", as RFC 5424 section 6.2.4 asks
	}
	out := newFormatter(style, facility*8+severity, hostname, or(c.AppName, "cloudtrail"), c.MaxMessage)
	out.render = c.Render
	return out, nil
}

// Connections is how many goroutines may send at once with use: one, since
// messages go over one connection.
func (o *Output) Connections() int { return 1 }

// Send makes one attempt: Write, and Wait for the confirmation.
func (o *Output) Send(ctx context.Context, b *record.Batch) error {
	c, err := o.Write(ctx, b)
	if err != nil || c == nil {
		return err
	}
	return c.Wait(ctx)
}

// Write returns when the batch is written; its confirmation tells when it is
// acknowledged. Records that were left out are named by Wait, as fault.TooLarge
// or fault.Refused with Records, when all others are confirmed. A Write that
// returns an error may have sent a part of the batch, and it breaks the
// connection, so that earlier batches that wait to be confirmed fail, too.
//
// Over UDP the confirmation is there at once. Over RELP Write returns when all
// is answered, as Send does, and the confirmation is nil.
func (o *Output) Write(ctx context.Context, b *record.Batch) (record.Confirmation, error) {
	return o.to.write(ctx, b)
}

// Close closes the connection and waits for its goroutines. A Write under way
// and batches not confirmed fail. It may be called more than once.
func (o *Output) Close() error {
	return o.to.close()
}
