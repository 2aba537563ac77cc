package control

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// WebConfig is what the page, metrics and health are served with.
type WebConfig struct {
	// Addr is host:port. On loopback everything is served; elsewhere only
	// metrics and health, unless there is a token.
	Addr string
	// Token opens the rest, as Bearer or as the password of Basic; "" if there
	// is none. Where there is one it is asked for on loopback, too.
	Token string
	// Page serves what is not served otherwise, if it is not nil: it is asked
	// for only what the token, or loopback, opens.
	Page http.Handler

	Build    Build
	Snapshot func() (*Snapshot, error)
	// Coverage tells which days of which streams are settled.
	Coverage func(days int) (*Coverage, error)
	// Healthy reports why the agent is not well, Ready why none is at work: nil
	// if all is well. Both are asked often, and are cheap.
	Healthy, Ready func() error

	Log zerolog.Logger
}

// Web serves the page, metrics and health, read-only. It may be used from any
// goroutine.
type Web struct {
	cfg      WebConfig
	loopback bool
	token    [sha256.Size]byte
	mux      *http.ServeMux // what everybody may see
	inner    *http.ServeMux // what only some may
}

// NewWeb makes a Web. It starts nothing.
func NewWeb(cfg WebConfig) *Web {
	w := &Web{cfg: cfg, loopback: isLoopback(cfg.Addr), token: sha256.Sum256([]byte(cfg.Token)), mux: http.NewServeMux(), inner: http.NewServeMux()}
	w.mux.Handle("/metrics", promhttp.HandlerFor(newRegistry(cfg.Build, cfg.Snapshot), promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 20 * time.Second, ErrorHandling: promhttp.ContinueOnError,
	}))
	w.mux.HandleFunc("/healthz", func(rw http.ResponseWriter, _ *http.Request) { say(rw, cfg.Healthy()) })
	w.mux.HandleFunc("/readyz", func(rw http.ResponseWriter, _ *http.Request) { say(rw, cfg.Ready()) })
	w.inner.HandleFunc("/v1/status", func(rw http.ResponseWriter, _ *http.Request) {
		s, err := cfg.Snapshot()
		if err != nil {
			Fail(rw, err)
			return
		}
		Reply(rw, s.Status)
	})
	w.inner.HandleFunc("/v1/coverage", func(rw http.ResponseWriter, r *http.Request) {
		days, err := coverageDays(r)
		if err == nil {
			var c *Coverage
			if c, err = cfg.Coverage(days); err == nil {
				Reply(rw, c)
				return
			}
		}
		Fail(rw, err)
	})
	page := cfg.Page
	if page == nil {
		page = http.HandlerFunc(plainPage)
	}
	w.inner.Handle("/", page)
	return w
}

// plainPage is served where there is no page.
func plainPage(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("trailpoll\n\n/v1/status\n/v1/coverage\n/metrics\n/healthz\n/readyz\n"))
}

// say answers a question of health.
func say(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("no\n")) // why is for the log: everybody may ask
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && isLocalName(host)
}

// isLocalName reports whether a host's name means this machine and nothing
// else: RFC 6761 section 6.3 for localhost.
func isLocalName(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// ServeHTTP lets through what may be seen.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		Fail(rw, &StatusError{http.StatusMethodNotAllowed, errors.New("nothing can be changed from here")})
		return
	}
	authorized := w.authorized(r)
	if err := w.foreign(r, authorized); err != nil {
		Fail(rw, &StatusError{http.StatusForbidden, err})
		return
	}
	if _, pattern := w.mux.Handler(r); pattern != "" {
		w.mux.ServeHTTP(rw, r)
		return
	}
	switch {
	case authorized, w.loopback && w.cfg.Token == "":
		w.inner.ServeHTTP(rw, r)
	case w.cfg.Token == "":
		Fail(rw, &StatusError{http.StatusForbidden, &fault.Error{
			Err:  errors.New("elsewhere than on loopback only /metrics, /healthz and /readyz are served"),
			Hint: "set listen_token, or listen on 127.0.0.1",
		}})
	default:
		h.Set("WWW-Authenticate", `Basic realm="trailpoll", charset="UTF-8"`)
		Fail(rw, &StatusError{http.StatusUnauthorized, &fault.Error{
			Err: errors.New("the token is wanted"), Hint: "send listen_token as Bearer, or as the password of Basic with any user name",
		}})
	}
}

// authorized reports whether a request carries the token.
func (w *Web) authorized(r *http.Request) bool {
	if w.cfg.Token == "" {
		return false
	}
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		if _, got, ok = r.BasicAuth(); !ok {
			return false
		}
	}
	sum := sha256.Sum256([]byte(got)) // so that the length takes no time either
	return subtle.ConstantTimeCompare(sum[:], w.token[:]) == 1
}

// foreign tells a request that a page of somewhere else has made.
//
// A page may have its own name point to 127.0.0.1 (DNS rebinding): its
// requests have that name in Host, and are not let in where only loopback
// guards what is served. And any page may send requests across sites: browsers
// say so in Sec-Fetch-Site (W3C Fetch Metadata) or Origin. Following a link to
// the page is all that is let through of those.
func (w *Web) foreign(r *http.Request, authorized bool) error {
	if w.loopback && !authorized {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if !isLocalName(host) {
			return &fault.Error{
				Err:  fmt.Errorf("this is served to this machine only, and not under the name %.100q", host),
				Hint: "open it as http://localhost; behind a proxy, set listen_token",
			}
		}
	}
	link := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		if !link {
			return errors.New("requests of other sites are refused")
		}
	}
	if o := r.Header.Get("Origin"); o != "" {
		if u, err := url.Parse(o); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return errors.New("requests of other sites are refused")
		}
	}
	return nil
}

// relisten is how long after the address could not be had it is tried again.
const relisten = 30 * time.Second

// Run serves until ctx ends. The agent works whether the address can be had or
// not: that it can't is said, and it is tried again.
func (w *Web) Run(ctx context.Context) {
	for failing := false; ; {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", w.cfg.Addr)
		if err == nil {
			failing = false
			w.cfg.Log.Info().Str("address", l.Addr().String()).Msg("status, metrics and health are served")
			err = serve(ctx, l, w, w.cfg.Log)
		}
		if ctx.Err() != nil {
			return
		}
		if !failing {
			failing = true
			w.cfg.Log.Error().Err(err).Str("address", w.cfg.Addr).
				Str("remedy", `give listen in [agent] another port, or "" to do without; it is tried again`).
				Msg("status, metrics and health are not served; the agent works")
		}
		t := time.NewTimer(relisten)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }
