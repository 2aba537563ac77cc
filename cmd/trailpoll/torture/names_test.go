//go:build linux

package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What DNS may do.
const (
	dnsLate    = "late answer"
	dnsFails   = "SERVFAIL"
	dnsSilent  = "no answer"
	dnsUnknown = "NXDOMAIN"
)

var dnsKinds = []string{dnsLate, dnsFails, dnsSilent, dnsUnknown}

// The names of the servers, in rounds where they have names.
const (
	s3Name  = "s3.trailpoll.test"
	webName = "web.trailpoll.test"
	sysName = "sys.trailpoll.test"
)

// names is a DNS server that knows these names. It listens on a loopback address
// of its own, on port 53: where a resolv.conf can't name another.
type names struct {
	weather *weather
	addr    string // of the host alone
	conn    net.PacketConn
	ctx     context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup
}

func newNames(w *weather) (*names, error) {
	n := &names{weather: w}
	var err error
	for range 20 { // others may have one
		n.addr = netip.AddrFrom4([4]byte{127, byte(64 + rand.IntN(128)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))}).String()
		if n.conn, err = new(net.ListenConfig).ListenPacket(context.Background(), "udp", net.JoinHostPort(n.addr, "53")); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening a port for DNS: %w", err)
	}
	n.ctx, n.end = context.WithCancel(context.Background())
	n.wg.Go(n.serve)
	return n, nil
}

func (n *names) close() {
	n.end()
	_ = n.conn.Close()
	n.wg.Wait()
}

// resolvConf writes the file that leads to the server, and has the agent see it.
func (n *names) resolvConf(dir string, w *world) error {
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+n.addr+"\noptions timeout:2 attempts:2\n"), 0o600); err != nil {
		return fmt.Errorf("writing resolv.conf: %w", err)
	}
	w.mounts = true
	w.add("/bin/mount --bind '%s' /etc/resolv.conf", file)
	return nil
}

func (n *names) serve() {
	for {
		b := make([]byte, 1500)
		size, from, err := n.conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		n.wg.Go(func() {
			if answer := n.answer(b[:size]); answer != nil {
				_, _ = n.conn.WriteTo(answer, from)
			}
		})
	}
}

// answer answers one question, in its time; nil is silence.
func (n *names) answer(q []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(q) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	asked := m.Questions[0]
	at, known := map[string]byte{s3Name + ".": 2, webName + ".": 3, sysName + ".": 1}[asked.Name.String()]
	switch {
	case known:
		if asked.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: asked.Name, Class: asked.Class, TTL: 0},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, at}},
			}}
		}
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	kind, rng := n.weather.now()
	if kind != "" {
		n.weather.hit(kind)
	}
	switch kind {
	case dnsLate:
		if !pass(n.ctx.Done(), time.Duration(rng.Int64N(int64(4*time.Second)))) {
			return nil
		}
	case dnsFails:
		m.RCode, m.Answers = dnsmessage.RCodeServerFailure, nil
	case dnsSilent:
		return nil
	case dnsUnknown:
		m.RCode, m.Answers = dnsmessage.RCodeNameError, nil
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// It is asked as the agent asks: by Go's resolver.
func TestNames(t *testing.T) {
	w := &weather{faults: newCounts(), name: "dns", phases: []phase{{to: time.Hour, kind: dnsUnknown, chance: 1}}}
	n, err := newNames(w)
	if err != nil {
		t.Skipf("DNS is not made to fail here: %v", err)
	}
	t.Cleanup(n.close)
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(n.addr, "53"))
	}}
	got, err := r.LookupHost(t.Context(), s3Name)
	if err != nil || len(got) != 1 || got[0] != s3Host {
		t.Errorf("%v, %v", got, err)
	}
	w.begin(time.Now())
	if _, err := r.LookupHost(t.Context(), s3Name); err == nil || w.faults.all() == 0 {
		t.Errorf("%v; faults: %v", err, w.faults)
	} else if e, ok := errors.AsType[*net.DNSError](err); !ok || !e.IsNotFound {
		t.Error(err)
	}
}
