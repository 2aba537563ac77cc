package https

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/net/http/httpproxy"
)

func (c Config) transport(conf *tls.Config, conns int, timeout time.Duration) (*http.Transport, error) {
	proxy, err := c.proxy()
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                  proxy,
		OnProxyConnectResponse: refusedByProxy,
		TLSClientConfig:        conf,
		ForceAttemptHTTP2:      true, // a TLSClientConfig of our own turns it off otherwise
		MaxConnsPerHost:        conns,
		MaxIdleConns:           conns,
		MaxIdleConnsPerHost:    conns,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    min(timeout, 15*time.Second),
		MaxResponseHeaderBytes: 256 << 10,
		// A dead HTTP/2 connection is found by pings, instead of by every batch
		// on it running into the timeout.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}, nil
}

func (c Config) proxy() (func(*http.Request) (*url.URL, error), error) {
	if c.Proxy == "" {
		return http.ProxyFromEnvironment, nil
	}
	u, err := url.Parse(c.Proxy)
	if err != nil || u.Hostname() == "" { // err would quote it, with the password that it may hold
		return nil, errors.New("reading the proxy's URL: it is not one like http://proxy.example.com:3128")
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("reading the proxy's URL: scheme %.20q is none of http, https, socks5", u.Scheme)
	}
	noProxy := os.Getenv("NO_PROXY")
	if noProxy == "" {
		noProxy = os.Getenv("no_proxy")
	}
	// It leaves this machine out by itself.
	find := (&httpproxy.Config{HTTPProxy: c.Proxy, HTTPSProxy: c.Proxy, NoProxy: noProxy}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return find(r.URL) }, nil
}

// proxyAnswer is a proxy's refusal to connect us.
type proxyAnswer struct {
	status int
	header http.Header
}

func (e *proxyAnswer) Error() string { return "the proxy answered " + statusText(e.status) }

func refusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyAnswer{resp.StatusCode, resp.Header}
}
