package https

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
)

// OAuth2 says where bearer tokens come from: the client credentials grant (RFC
// 6749 section 4.4). The zero value means that there are none.
type OAuth2 struct {
	TokenURL     string // http or https; "" = no OAuth2
	ClientID     string
	ClientSecret string
	Scopes       []string
	Audience     string // the parameter of that name, which some endpoints want; "" = none
}

// tokens fetches bearer tokens and keeps the current one. It is safe for
// concurrent use; one goroutine fetches and the others wait for it.
type tokens struct {
	conf    clientcredentials.Config
	op      string // names the endpoint in errors
	addr    string
	client  *http.Client
	tls     *tlsconf.Client
	timeout time.Duration
	secrets secrets

	turn    chan struct{} // whoever has put something in may use what is below
	current *oauth2.Token
	fetched time.Time
}

// tokenSource returns what OAuth2 describes, nil for none.
func (c Config) tokenSource(conns int, timeout time.Duration) (*tokens, error) {
	a := c.OAuth2
	if a.TokenURL == "" {
		return nil, nil
	}
	u, err := url.Parse(a.TokenURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, errors.New("reading the token URL: it is not one like https://login.example.com/oauth2/token")
	}
	if a.ClientID == "" || a.ClientSecret == "" {
		return nil, errors.New("OAuth2 needs a client id and a client secret")
	}
	t := &tokens{
		op:   "fetching a token from " + u.Scheme + "://" + u.Host,
		addr: hostPort(u), timeout: timeout, turn: make(chan struct{}, 1),
	}
	t.secrets = newSecrets(Config{Token: a.ClientSecret, Username: a.ClientID, Password: a.ClientSecret}, u)
	t.conf = clientcredentials.Config{
		ClientID: a.ClientID, ClientSecret: a.ClientSecret, TokenURL: a.TokenURL, Scopes: a.Scopes,
	}
	if a.Audience != "" {
		t.conf.EndpointParams = url.Values{"audience": {a.Audience}}
	}
	conf := c.TLS
	conf.ServerName = "" // is the receiver's
	if t.tls, err = conf.Load(); err != nil {
		return nil, err
	}
	transport, err := c.transport(t.tls.Conf, conns, timeout)
	if err != nil {
		return nil, err
	}
	t.client = &http.Client{
		Transport: transport,
		// A redirect would carry the secret elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return t, nil
}

func (t *tokens) close() { t.client.CloseIdleConnections() }

// maxEarly is how long before its end a token is fetched anew, at most; a
// tenth of its life if that is less.
const maxEarly = time.Minute

// get returns a token, fetching one where there is none or the one there is
// ends soon. An endpoint that fails costs nothing while the old token lasts.
func (t *tokens) get(ctx context.Context) (string, error) {
	if err := t.enter(ctx); err != nil {
		return "", err
	}
	defer t.leave()
	now := time.Now()
	if k := t.current; k != nil && (k.Expiry.IsZero() || now.Before(k.Expiry.Add(-min(maxEarly, k.Expiry.Sub(t.fetched)/10)))) {
		return k.AccessToken, nil
	}
	attempt, cancel := context.WithTimeoutCause(ctx, t.timeout, errTimeout)
	defer cancel()
	fresh, err := t.conf.Token(context.WithValue(attempt, oauth2.HTTPClient, t.client))
	switch {
	case err == nil && !validValue(fresh.AccessToken):
		err = &fault.Error{Kind: fault.Held, Op: t.op, Err: errors.New("the token holds a control character"), Hint: "check oauth2.token_url"}
	case err == nil:
		t.tls.Works()
		t.current, t.fetched = fresh, now
		return fresh.AccessToken, nil
	default:
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		err = t.failed(err)
	}
	if t.current != nil && now.Before(t.current.Expiry) {
		return t.current.AccessToken, nil
	}
	return "", err
}

// drop forgets a token that the receiver refused, unless it is not the current
// one any more.
func (t *tokens) drop(ctx context.Context, refused string) error {
	if err := t.enter(ctx); err != nil {
		return err
	}
	defer t.leave()
	if t.current != nil && t.current.AccessToken == refused {
		t.current = nil
	}
	return nil
}

func (t *tokens) enter(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &fault.Error{Op: t.op, Err: context.Cause(ctx)}
	}
}

func (t *tokens) leave() { <-t.turn }

// failed says what it means that there is no token. The library's error quotes
// the whole answer and the URL, so that its text is made anew.
func (t *tokens) failed(err error) error {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		what := "the token endpoint answered " + statusText(e.Response.StatusCode)
		for _, said := range []string{e.ErrorCode, e.ErrorDescription} {
			if said := quote(t.secrets.hide([]byte(said)), maxQuoted); said != "" {
				what += ": " + said
			}
		}
		out := &fault.Error{
			Op: t.op, Err: errors.New(what), Kind: classify(e.Response.StatusCode).kind,
			RetryAfter: retryAfter(e.Response.Header, time.Now()),
		}
		switch e.Response.StatusCode {
		case http.StatusServiceUnavailable:
			if out.RetryAfter > 0 {
				out.Kind = fault.Throttled
			}
		case http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden: // RFC 6749 section 5.2
			out.Kind, out.Hint = fault.Held, "check oauth2.client_id, client_secret, scopes and audience"
		default:
			if out.Kind != fault.Temporary && out.Kind != fault.Throttled {
				out.Kind, out.Hint = fault.Held, "check oauth2.token_url"
			}
		}
		return out
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which may hold a secret
	}
	if p, ok := errors.AsType[*proxyAnswer](err); ok {
		a := classify(p.status)
		return &fault.Error{Kind: a.kind, Op: t.op, Err: p, Hint: a.hint}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errTimeout, err)
	}
	kind, hint := t.tls.Explain(err, t.addr)
	return &fault.Error{Kind: kind, Op: t.op, Err: t.secrets.clean(err), Hint: hint}
}

// hostPort is where a URL's host listens.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}
