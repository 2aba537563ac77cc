package https

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// issuer is a token endpoint, and a receiver that wants its tokens.
type issuer struct {
	mu      sync.Mutex
	tokens  int // fetched
	life    int // seconds that each lasts; 0 = it doesn't say
	valid   string
	form    url.Values
	status  int    // instead of a token
	body    string // with status
	refuse  bool   // the receiver refuses every token
	posts   int
	headers http.Header
}

const clientSecret = "s3cr&t client"

func (x *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.URL.Path == "/in" {
		x.posts++
		if x.refuse || r.Header.Get("Authorization") != "Bearer "+x.valid {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprint(w, "refused: ", r.Header.Get("Authorization"))
		}
		return
	}
	_ = r.ParseForm()
	x.form, x.headers = r.PostForm, r.Header
	if x.status != 0 {
		for k, v := range map[string]string{"Location": "http://127.0.0.1:1/elsewhere", "Retry-After": "7"} {
			w.Header().Set(k, v)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(x.status)
		_, _ = fmt.Fprint(w, x.body)
		return
	}
	x.tokens++
	x.valid = fmt.Sprintf("token-number-%d", x.tokens)
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":%d}`, x.valid, x.life)
}

func newIssuer(t *testing.T) (*issuer, *Output) {
	x := &issuer{life: 3600}
	in := newReceiver(t, nil)
	in.handler = x
	return x, open(t, Config{
		URL: "http://" + in.addr + "/in",
		OAuth2: OAuth2{
			TokenURL: "http://" + in.addr + "/token?key=query-secret", ClientID: "agent", ClientSecret: clientSecret,
			Scopes: []string{"a", "b"}, Audience: "https://siem",
		},
	})
}

func send(t *testing.T, o *Output) error {
	t.Helper()
	return o.Send(t.Context(), batch(`{"a":1}`))
}

// One token serves all requests, also those of the first moment.
func TestTokenIsShared(t *testing.T) {
	x, o := newIssuer(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if err := send(t, o); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	id, secret, _ := (&http.Request{Header: x.headers}).BasicAuth()
	if x.tokens != 1 || x.posts != 40 || x.form.Get("grant_type") != "client_credentials" || x.form.Get("scope") != "a b" ||
		x.form.Get("audience") != "https://siem" || id != "agent" || secret != url.QueryEscape(clientSecret) {
		t.Errorf("%d tokens for %d requests: %v, %s", x.tokens, x.posts, x.form, id)
	}
}

// A token that was revoked before its time is fetched anew once, in the same
// attempt; a receiver that refuses the fresh one, too, holds the output.
func TestTokenRevoked(t *testing.T) {
	x, o := newIssuer(t)
	if err := send(t, o); err != nil {
		t.Fatal(err)
	}
	x.valid = "another"
	if err := send(t, o); err != nil || x.tokens != 2 || x.posts != 3 {
		t.Errorf("%v, %d tokens, %d requests", err, x.tokens, x.posts)
	}
	x.refuse = true
	err := send(t, o)
	expected{kind: fault.Held, text: "refused: Bearer [hidden]", hint: "scopes"}.check(t, err)
	if x.tokens != 3 || x.posts != 5 || strings.Contains(err.Error(), "token-number") {
		t.Errorf("%d tokens, %d requests: %v", x.tokens, x.posts, err)
	}
}

// A token is fetched again before it ends; the old one serves while the
// endpoint fails.
func TestTokenEnds(t *testing.T) {
	x, o := newIssuer(t)
	if err := send(t, o); err != nil {
		t.Fatal(err)
	}
	age := func(passed time.Duration) {
		o.tokens.current.Expiry = o.tokens.current.Expiry.Add(-passed)
		o.tokens.fetched = o.tokens.fetched.Add(-passed)
	}
	age(58 * time.Minute)
	if err := send(t, o); err != nil || x.tokens != 1 {
		t.Errorf("two minutes before its end: %v, %d tokens", err, x.tokens)
	}
	age(90 * time.Second)
	x.status = 503
	if err := send(t, o); err != nil || x.tokens != 1 {
		t.Errorf("the endpoint fails while the old token lasts: %v, %d tokens", err, x.tokens)
	}
	x.status = 0
	if err := send(t, o); err != nil || x.tokens != 2 {
		t.Errorf("half a minute before its end: %v, %d tokens", err, x.tokens)
	}
	age(2 * time.Hour)
	x.status = 503
	expected{kind: fault.Throttled, text: "fetching a token"}.check(t, send(t, o))
}

func TestTokenEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   expected
	}{
		"wrong secret":  {401, `{"error":"invalid_client","error_description":"wrong: s3cr&t client\r\nEvil: 1"}`, expected{kind: fault.Held, text: `invalid_client: wrong: [hidden]\r\nEvil`, hint: "client_secret"}},
		"wrong scope":   {400, `{"error":"invalid_scope"}`, expected{kind: fault.Held, text: "invalid_scope", hint: "scopes"}},
		"error in 200":  {200, `{"error":"unauthorized_client"}`, expected{kind: fault.Held, text: "unauthorized_client"}},
		"nothing there": {404, `not here`, expected{kind: fault.Held, text: "404", hint: "token_url"}},
		"elsewhere":     {307, ``, expected{kind: fault.Held, text: "307", hint: "token_url"}},
		"too often":     {429, ``, expected{kind: fault.Throttled}},
		"down":          {500, `oops`, expected{kind: fault.Temporary, text: "500"}},
		"no token":      {200, `{}`, expected{kind: fault.Temporary, text: "access_token"}},
		"no JSON":       {200, `<html>`, expected{kind: fault.Temporary}},
		"a wild token":  {200, `{"access_token":"a\r\nEvil: 1"}`, expected{kind: fault.Held, text: "control character"}},
	} {
		t.Run(name, func(t *testing.T) {
			x, o := newIssuer(t)
			x.status, x.body = c.status, c.body
			err := send(t, o)
			c.want.check(t, err)
			if text := err.Error() + fault.HintOf(err); !strings.HasPrefix(text, "fetching a token from http://127.0.0.1") ||
				strings.Contains(text, "s3cr") || strings.Contains(text, "query-secret") || strings.ContainsAny(text, "\r\n") {
				t.Errorf("TestInvariant10: %q", text)
			}
			if x.posts != 0 {
				t.Error("records were sent without a token")
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		in := newReceiver(t, nil)
		in.Fail(refusing)
		o := open(t, Config{URL: "http://127.0.0.1:1", OAuth2: OAuth2{TokenURL: "http://" + in.addr + "/?k=query-secret", ClientID: "a", ClientSecret: "b"}})
		err := send(t, o)
		expected{kind: fault.Held, text: "fetching a token", hint: in.addr}.check(t, err)
		if strings.Contains(err.Error(), "query-secret") {
			t.Errorf("%v", err)
		}
	})
	t.Run("never answers", func(t *testing.T) {
		in := newReceiver(t, nil)
		in.Fail(hanging)
		o := open(t, Config{URL: "http://127.0.0.1:1", Timeout: 100 * time.Millisecond, OAuth2: OAuth2{TokenURL: "http://" + in.addr, ClientID: "a", ClientSecret: "b"}})
		expected{kind: fault.Temporary, text: "within the timeout"}.check(t, send(t, o))
	})
}
