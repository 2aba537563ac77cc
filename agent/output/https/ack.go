package https

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// acks asks Splunk whether what it took is indexed ("About HTTP Event Collector
// Indexer Acknowledgment" in Splunk's documentation). It is not changed once
// made.
type acks struct {
	url      *url.URL
	channel  string        // of this Output: acknowledgements are told to their channel alone
	patience time.Duration // after which a batch counts as not confirmed
	first    time.Duration // before the first question; it doubles up to most
	most     time.Duration
}

// hecCollector is where HEC's paths begin.
const hecCollector = "/services/collector"

func newAcks(receiver *url.URL, channel string) (*acks, error) {
	at := strings.LastIndex(receiver.Path, hecCollector)
	if at < 0 {
		return nil, errors.New("acknowledgements are asked for below " + hecCollector + ", which the URL doesn't hold")
	}
	u := *receiver
	u.Path, u.RawPath = receiver.Path[:at]+hecCollector+"/ack", ""
	q := u.Query()
	q.Set("channel", channel)
	u.RawQuery = q.Encode()
	return &acks{
		url: &u, channel: channel,
		patience: 3 * time.Minute, first: 200 * time.Millisecond, most: 5 * time.Second,
	}, nil
}

var (
	errNoAckID    = errors.New("the receiver took the batch and gave no id to ask its acknowledgement for")
	errNotAcked   = errors.New("the receiver took the batch and did not acknowledge it in time: it will be sent again")
	errNoAckReply = errors.New("the answer about acknowledgements is not HEC's")
)

// await asks until the batch is indexed. cookies are those that came with the
// answer to the batch: behind a load balancer they lead to the indexer that took
// it, which alone knows. An acknowledgement that is told and lost on the way is
// never told again; the batch counts as not confirmed then.
func (o *Output) await(ctx context.Context, id int64, cookies []*http.Cookie) error {
	a := o.acks
	waiting, cancel := context.WithTimeoutCause(ctx, a.patience, errNotAcked)
	defer cancel()
	question := []byte(`{"acks":[` + strconv.FormatInt(id, 10) + `]}`)
	var failure error
	for wait := a.first; ; wait = min(2*wait, a.most) {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-waiting.Done():
			timer.Stop()
			if ctx.Err() != nil {
				return &fault.Error{Op: o.op, Err: context.Cause(ctx)}
			}
			err := errNotAcked
			if failure != nil {
				err = fmt.Errorf("%w; last: %w", errNotAcked, failure)
			}
			return &fault.Error{Op: o.op, Err: err, Hint: "if this goes on: check that a load balancer keeps a client at one indexer, and how busy the indexers are"}
		}
		var done bool
		if done, failure = o.acked(waiting, id, question, cookies); done {
			return nil
		}
		// Refused credentials and the like won't get better by asking again.
		if kind := fault.KindOf(failure); failure != nil && kind != fault.Temporary && kind != fault.Throttled {
			return failure
		}
	}
}

// acked asks once.
func (o *Output) acked(ctx context.Context, id int64, question []byte, cookies []*http.Cookie) (bool, error) {
	attempt, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	h := o.header.Clone()
	h.Del("Content-Encoding")
	req := (&http.Request{
		Method: http.MethodPost, URL: o.acks.url, Host: o.host, Header: h,
		Body:          io.NopCloser(bytes.NewReader(question)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(question)), nil },
		ContentLength: int64(len(question)),
	}).WithContext(attempt)
	for _, c := range cookies {
		req.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value, Quoted: c.Quoted}) //nolint:gosec // attributes are for answers: a request sends the name and the value
	}
	resp, err := o.roundTrip(ctx, req)
	if err != nil {
		return false, err
	}
	defer discard(resp)
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return false, o.failed(unreadable(err))
	}
	if !classify(resp.StatusCode).ok {
		return false, o.refused(resp, text, nil)
	}
	var said struct {
		Acks map[string]bool `json:"acks"`
	}
	if json.Unmarshal(text, &said) != nil || said.Acks == nil {
		return false, &fault.Error{Op: o.op, Err: errNoAckReply}
	}
	return said.Acks[strconv.FormatInt(id, 10)], nil
}
