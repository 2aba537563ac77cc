package https

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Reach makes a HEAD request of the URL, with what the output logs in with, and
// says what came back. That tells whether the way there works, TLS and proxy
// included, and whether the receiver refuses who we are; few receivers say more
// of a request that carries no records. The error is a fault.Error.
func (o *Output) Reach(ctx context.Context) (answer string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	header := o.header.Clone()
	header.Del("Content-Type")
	header.Del("Content-Encoding")
	resp, err := o.roundTrip(ctx, (&http.Request{
		Method: http.MethodHead, URL: o.url, Host: o.host, Header: header, Body: http.NoBody,
		GetBody: func() (io.ReadCloser, error) { return http.NoBody, nil },
	}).WithContext(ctx))
	if err != nil {
		return "", err
	}
	defer discard(resp)
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired,
		status == http.StatusPaymentRequired, status/100 == 3:
		return "", o.classified(classify(status), status, resp.Header, statusText(status))
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return "", o.classified(classify(status), status, resp.Header, statusText(status))
	default:
		return fmt.Sprintf("it answers (HTTP %d to HEAD)", status), nil
	}
}
