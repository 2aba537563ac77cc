package check

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Receiver is the far end of an output.
type Receiver interface {
	// Reach goes the way to the receiver, with TLS and, as far as that can be
	// tried without sending a record, with what the output logs in with. It
	// returns what came back.
	Reach(ctx context.Context) (answer string, err error)
}

// Sender sends records, as agent.Output does.
type Sender interface {
	Send(ctx context.Context, b *record.Batch) error
}

// Output is one output to check.
type Output struct {
	Name, Type string
	// To names the receiver: a URL without its path, addresses, a file.
	To       string
	Receiver Receiver // nil: there is nothing on the way, as with stdout
	Sender   Sender
	// Unacknowledged: the transport has no acknowledgement (UDP).
	Unacknowledged bool
	// Sources are how many enabled sources it gets records of.
	Sources int
}

func (o *Output) check(x *part) {
	if o.Sources == 0 {
		x.warn("sources", "matched the output's sources", "no enabled source sends to it", "name a source in its sources, or leave that empty for all")
	}
	reached := true
	if o.Receiver == nil {
		x.skip("reach", "connect to "+o.To, "there is nothing on the way to "+o.Type)
	} else {
		tried := "connected to " + o.To
		var answer string
		err := x.step(func(ctx context.Context) (err error) {
			answer, err = o.Receiver.Reach(ctx)
			return err
		})
		if reached = err == nil; reached {
			x.ok("reach", tried, answer)
		} else {
			x.fail("reach", tried, err, "")
		}
	}
	if o.Unacknowledged {
		x.warn("acknowledgement", "looked at the transport", "UDP has no acknowledgement: what the network or the receiver drops is lost, and nobody is told",
			`use transport = "relp-tls", "tls" or "tcp", or an https output, where every record counts`)
	}
	switch {
	case !x.plan.SendTest:
		x.skip("send", "send a test record to "+o.To, "not asked for; --send-test sends one")
	case !reached:
		x.skip("send", "send a test record to "+o.To, "the receiver was not reached")
	default:
		o.send(x)
	}
}

// send sends one record that says that it is a test.
func (o *Output) send(x *part) {
	now := x.plan.Now().UTC().Truncate(time.Second)
	id := fmt.Sprintf("trailpoll-check-%d", now.UnixNano())
	raw := fmt.Sprintf(`{"eventVersion":"1.11","eventTime":%q,"eventSource":"trailpoll","eventName":"TrailpollCheck",`+
		`"eventID":%q,"eventType":"TrailpollTest","awsRegion":"us-east-1","recipientAccountId":"000000000000",`+
		`"userIdentity":{"type":"Unknown"},"requestParameters":null,"responseElements":null}`, now.Format(time.RFC3339), id)
	batch := new(record.Batch)
	batch.Add(record.Record{
		Object: &record.Object{
			Source: "check", Bucket: "trailpoll-check", Key: "test", Account: "000000000000", Region: "us-east-1",
			LogType: "CloudTrail", Stamp: now,
		},
		Raw: []byte(raw), EventID: []byte(id), EventTime: []byte(now.Format(time.RFC3339)),
	})
	tried := "sent a record with the eventID " + id
	err := x.step(func(ctx context.Context) error { return o.Sender.Send(ctx, batch) })
	if err == nil {
		answer := "acknowledged; look for it at the receiver"
		if o.Unacknowledged {
			answer = "sent; nothing says whether it arrived: look for it at the receiver"
		}
		x.ok("send", tried, answer)
		return
	}
	if refused := fault.RefusalsOf(err); len(refused) > 0 && !strings.Contains(err.Error(), refused[0].Answer) {
		err = fmt.Errorf("%w: %s", err, refused[0].Answer)
	}
	remedy := ""
	switch fault.KindOf(err) {
	case fault.Refused, fault.TooLarge:
		remedy = "compare the output's format and url with what the receiver expects"
	}
	x.fail("send", tried, err, orElse(fault.HintOf(err), remedy))
}
