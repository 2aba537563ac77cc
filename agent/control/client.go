package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// ErrNoAgent: no agent serves the control socket of the state directory.
var ErrNoAgent = errors.New("no agent runs")

// ErrLeft is ErrNoAgent where the socket of an agent is there all the same: it
// ended without stopping in order.
var ErrLeft = fmt.Errorf("%w; the last one ended without stopping in order and left its control socket", ErrNoAgent)

// Client speaks with the agent that runs. It may be used from any goroutine,
// and is to be closed.
type Client struct {
	http  *http.Client
	first chan net.Conn // the connection that has shown that the agent is there, until it is used
}

// Connect finds the agent that runs on a state directory. Its error is
// ErrNoAgent (which ErrLeft is, too) if none does, and another where one may
// run and can't be asked, or does not answer within 10 s.
func Connect(ctx context.Context, stateDir string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	first, err := dial(ctx, stateDir)
	if err != nil {
		return nil, err
	}
	c := &Client{first: make(chan net.Conn, 1)}
	c.first <- first
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case conn := <-c.first:
				return conn, nil
			default:
				return dial(ctx, stateDir)
			}
		},
		MaxIdleConns: 1, IdleConnTimeout: time.Minute,
	}}
	err = c.Do(ctx, http.MethodGet, pingPath, nil, nil)
	if _, answers := errors.AsType[*StatusError](err); err != nil && !answers {
		c.Close()
		return nil, &fault.Error{
			Kind: fault.Unreachable, Op: "asking the agent of " + stateDir, Err: errors.New("it runs, and does not answer"),
			Hint: "its log may say why; if it stays so, restart the agent: nothing is lost by that",
		}
	}
	return c, nil
}

// pingPath is asked for to see whether the agent answers.
const pingPath = "/v1/ping"

// Close lets the connections go.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	select {
	case conn := <-c.first:
		_ = conn.Close()
	default:
	}
}

// maxAnswer is the most bytes of an answer that are read.
const maxAnswer = 256 << 20

// Do sends a request with in as its JSON body (nil: none) and decodes the
// answer into out (nil: dropped). An error that the agent answers with has its
// text and its hint, and its status as a StatusError.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://trailpoll"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the agent: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("asking the agent: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var f Failure
		if json.Unmarshal(answer, &f) != nil || f.Error == "" {
			f.Error = "it answers " + resp.Status
		}
		return &StatusError{resp.StatusCode, &fault.Error{Kind: fault.Misconfigured, Err: errors.New(f.Error), Hint: f.Hint}}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("reading the agent's answer: %w", err)
	}
	return nil
}
