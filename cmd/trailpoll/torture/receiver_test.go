//go:build linux

package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
)

// What a receiver over HTTP may do.
const (
	outError       = "500"
	outTakenError  = "502 after taking"
	outBusy        = "503 with Retry-After"
	outTooMany     = "429"
	outTooManyFor  = "429 with Retry-After"
	outTooLarge    = "413"
	outUnknown     = "401"
	outNowhere     = "404"
	outReset       = "reset before taking"
	outTakenReset  = "reset after taking"
	outSilent      = "no answer"
	outTakenSilent = "no answer after taking"
	outSlow        = "slow"
	outDown        = "connection refused"
	outStranger    = "another certificate"
	outGarbage     = "no HTTP"
	outVanished    = "half-open: the peer vanishes" // drawn apart
	outRefuses     = "400 for one record"           // drawn with the objects
)

var outKinds = []string{
	outError, outTakenError, outBusy, outTooMany, outTooManyFor, outTooLarge, outUnknown, outNowhere, outReset,
	outTakenReset, outSilent, outTakenSilent, outSlow, outDown, outStranger, outGarbage,
}

const (
	// outTimeout is the agent's, of one request; silence is longer.
	outTimeout = 4 * time.Second
	silence    = outTimeout + time.Second
	// An answer that was due so short a time before a connection broke may
	// not have come.
	justNow = 500 * time.Millisecond
	// most is how many records a batch may have while batches are too large.
	most = 3
)

// web is a receiver over HTTP.
type web struct {
	weather *weather
	journal *journal
	ca      *receivertest.CA // nil: plain http
	caFile  string
	addr    string
	poison  map[digest]bool // records that are refused, each by itself
	forGood bool            // ... also when all is healed
	latency time.Duration   // of answers, at most, until all is healed
	name    string          // of its host; "" = by its address, else few connections are kept

	mu      sync.Mutex
	http    *receivertest.HTTP
	wire    *wire // of http
	garbage net.Listener
	away    atomic.Bool // nothing that comes now is answered
	healed  atomic.Bool
}

func newWeb(dir, name string, w *weather, j *journal, p *plan) (*web, error) {
	r := &web{weather: w, journal: j, poison: p.poison, forGood: p.poisonForGood, latency: p.latency, name: name, addr: webHost + ":0"}
	if p.secure {
		ca, err := receivertest.NewCA()
		if err != nil {
			return nil, err
		}
		r.ca, r.caFile = ca, filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(r.caFile, ca.PEM(), 0o600); err != nil {
			return nil, fmt.Errorf("writing the authority: %w", err)
		}
	}
	return r, r.listen(r.ca)
}

func (r *web) listen(ca *receivertest.CA) error {
	h, err := receivertest.NewHTTP(receivertest.HTTPConfig{
		Listen: r.addr, CA: ca, Answer: r.answer,
		Wire: func(ln net.Listener) net.Listener {
			r.wire = newWire(ln, r.weather.notice)
			return r.wire
		},
	})
	if err != nil {
		return err
	}
	r.http, r.addr = h, h.Addr()
	r.away.Store(false)
	return nil
}

// change makes the receiver another: the right one (""), or what kind says.
func (r *web) change(kind string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away.Store(true)
	now := time.Now()
	r.journal.lose(now.Add(-justNow), now.Add(justNow))
	if kind == outVanished && r.http != nil {
		r.wire.vanish()
		return nil
	}
	if r.http != nil {
		_ = r.http.Close()
		r.http = nil
	}
	if r.garbage != nil {
		_ = r.garbage.Close()
		r.garbage = nil
	}
	switch kind {
	case outDown:
		return nil
	case outStranger:
		if r.ca == nil {
			return nil // plain http has none: it is just away
		}
		ca, err := receivertest.NewCA()
		if err != nil {
			return err
		}
		return r.listen(ca)
	case outGarbage:
		ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", r.addr)
		if err != nil {
			return fmt.Errorf("opening the receiver's port: %w", err)
		}
		r.garbage = ln
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				r.weather.notice()
				_, _ = io.WriteString(c, "220 mail.example.com ESMTP\r\n")
				_ = c.Close()
			}
		}()
		return nil
	}
	return r.listen(r.ca)
}

func (r *web) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.http != nil {
		_ = r.http.Close()
	}
	if r.garbage != nil {
		_ = r.garbage.Close()
	}
}

// answer decides on a request and notes what it took.
func (r *web) answer(q *receivertest.Request) receivertest.Answer {
	a := r.decide(q)
	if r.name != "" && q.Number%8 == 0 {
		if a.Header == nil {
			a.Header = http.Header{}
		}
		a.Header.Set("Connection", "close")
	}
	return a
}

func (r *web) decide(q *receivertest.Request) receivertest.Answer {
	run, err := strconv.Atoi(q.Header.Get("X-Run"))
	if err != nil || q.Header.Get("Authorization") != "Bearer "+token {
		r.weather.hit("request without its headers")
		return receivertest.Answer{Status: http.StatusUnauthorized}
	}
	for _, raw := range q.Records {
		if r.poison[digestOf(raw)] && (r.forGood || !r.healed.Load()) {
			r.weather.hit(outRefuses)
			return receivertest.Answer{Status: http.StatusBadRequest}
		}
	}
	kind, rng := r.weather.now()
	if kind != "" && kind != outTooLarge && kind != outSlow {
		r.weather.hit(kind)
	}
	after := func(seconds int) http.Header { return http.Header{"Retry-After": {strconv.Itoa(seconds)}} }
	switch kind {
	case outError:
		return receivertest.Answer{Status: 500}
	case outBusy:
		return receivertest.Answer{Status: 503, Header: after(1 + rng.IntN(2))}
	case outTooMany:
		return receivertest.Answer{Status: 429}
	case outTooManyFor:
		return receivertest.Answer{Status: 429, Header: after(1 + rng.IntN(2))}
	case outUnknown:
		return receivertest.Answer{Status: 401}
	case outNowhere:
		return receivertest.Answer{Status: 404}
	case outReset:
		return receivertest.Answer{Status: 500, Lose: true}
	case outSilent:
		return receivertest.Answer{Status: 500, Delay: silence}
	case outTooLarge:
		if len(q.Records) > most {
			r.weather.hit(kind)
			return receivertest.Answer{Status: 413}
		}
	}
	// From here on the records are taken.
	var delay time.Duration
	if !r.healed.Load() {
		delay = time.Duration(rng.Int64N(int64(r.latency + time.Millisecond)))
	}
	lost := r.away.Load()
	a := receivertest.Answer{}
	switch kind {
	case outTakenError:
		a.Status, lost = 502, true
	case outTakenReset:
		a.Lose, lost = true, true
	case outTakenSilent:
		delay, lost = silence, true
	case outSlow:
		r.weather.hit(kind)
		delay = time.Duration(rng.Int64N(int64(time.Second)))
	}
	a.Delay = delay
	r.journal.take(run, delay, lost, q.Records)
	return a
}

// output is the receiver's [[output]] in the configuration.
func (r *web) output(lines string) string {
	scheme, tls := "http", ""
	if r.ca != nil {
		scheme, tls = "https", fmt.Sprintf("[output.tls]\nca_file = %q\nserver_name = \"localhost\"\n", r.caFile)
	}
	return fmt.Sprintf(`
[[output]]
name = "web"
type = "https"
url = "%s://%s/ingest"
allow_http = true
token = "env:%s"
headers = { X-Run = "env:%s" }
timeout = %q
batch_wait = "50ms"
%s
%s`, scheme, named(r.name, r.addr), tokenInEnv, runInEnv, outTimeout, lines, tls)
}

// sys is a receiver of syslog over TCP, or over RELP, which answers each message.
type sys struct {
	relp    bool
	weather *weather
	journal *journal
	syslog  *receivertest.Syslog
	mu      sync.Mutex
	bad     []error
}

// sysBreaks: the connection is reset before a message is taken.
const sysBreaks = "connection reset"

func newSys(w *weather, j *journal, relp bool) (*sys, error) {
	s := &sys{relp: relp, weather: w, journal: j}
	var err error
	s.syslog, err = receivertest.NewSyslog(receivertest.SyslogConfig{
		RELP: relp,
		Take: func(raw []byte) {
			m, err := receivertest.ParseRFC5424(raw)
			if err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.bad = append(s.bad, err)
				return
			}
			j.take(noRun, 0, false, [][]byte{m.Text})
		},
		Break: func(int) bool {
			kind, rng := w.now()
			if kind == sysBreaks && rng.IntN(50) == 0 {
				w.hit(kind)
				return true
			}
			return false
		},
	})
	return s, err
}

func (s *sys) close() { _ = s.syslog.Close() }

// problems are messages that were none, but for those that a kill or a reset cut.
func (s *sys) problems() (all []error) {
	for _, err := range s.syslog.Problems() {
		if !errors.Is(err, io.ErrUnexpectedEOF) && !isReset(err) {
			all = append(all, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(all, s.bad...)
}

func isReset(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

func (s *sys) output(name string) string {
	transport := `transport = "tcp"
confirm_delay = "300ms"`
	if s.relp {
		transport = `transport = "relp"`
	}
	return fmt.Sprintf(`
[[output]]
name = "sys"
type = "syslog"
addresses = [%q]
max_message = "2MiB"
%s
`, named(name, s.syslog.Addr()), transport)
}
