package syslog

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
)

// Over each transport: the second address takes over when the first can't be
// had, is kept while it works, and the first comes back in time.
func TestFailover(t *testing.T) {
	for transport, framing := range map[Transport]Framing{TCP: OctetCounting, TLS: OctetCounting, RELP: relpFraming, RELPTLS: relpFraming} {
		t.Run(string(transport), func(t *testing.T) {
			conf := Config{Transport: transport, ConfirmDelay: 20 * time.Millisecond, Timeout: 10 * time.Second}
			serve, client := mutual(t)
			if transport == TLS || transport == RELPTLS {
				conf.TLS = client
			} else {
				serve = nil
			}
			first, second := newReceiver(t, framing, serve), newReceiver(t, framing, serve)
			conf.Addresses = []string{first.addr, second.addr}
			o := open(t, conf)
			r := routeOf(o)
			at := func(name string, in *receiver, n int) {
				t.Helper()
				var err error
				for range 2 { // the first attempt may meet the break
					if err = o.Send(t.Context(), batch(outputtest.Numbered(name, 5))); err == nil {
						break
					}
				}
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := in.Await(t.Context(), n); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			at("a", first, 5)
			first.Fail(outputtest.Fault{Mode: outputtest.Refuse})
			at("b", second, 5)
			at("c", second, 10)
			first.Fail(outputtest.Fault{})
			at("d", second, 15) // it works, and is kept
			r.home = 0
			at("e", first, 10) // time to go back
			if n := len(second.Records()); n != 15 {
				t.Errorf("%d records at the second", n)
			}
			// A first that does not come back costs nothing.
			first.Fail(outputtest.Fault{Mode: outputtest.Refuse})
			at("f", second, 20)
			at("g", second, 25)
			// Neither: both are named.
			second.Fail(outputtest.Fault{Mode: outputtest.Refuse})
			_ = o.Send(t.Context(), batch(outputtest.Numbered("x", 1)))
			err := o.Send(t.Context(), batch(outputtest.Numbered("x", 1)))
			if fault.KindOf(err) != fault.Held || !strings.Contains(err.Error(), first.addr) || !strings.Contains(err.Error(), second.addr) ||
				strings.Contains(err.Error(), "\n") || !strings.Contains(fault.HintOf(err), second.addr) {
				t.Errorf("%v (%s)", err, fault.HintOf(err))
			}
		})
	}
}

func routeOf(o *Output) *route {
	switch to := o.to.(type) {
	case *stream:
		return to.route
	case *relp:
		return to.route
	case *datagrams:
		return to.route
	}
	return nil
}

// Going back to the first address gives up nothing that is outstanding at the
// other.
func TestInvariant1_GoingHomeKeepsWhatIsOutstanding(t *testing.T) {
	first, second := newReceiver(t, OctetCounting, nil), newReceiver(t, OctetCounting, nil)
	first.Fail(outputtest.Fault{Mode: outputtest.Refuse})
	o := open(t, Config{Transport: TCP, Addresses: []string{first.addr, second.addr}, ConfirmDelay: 300 * time.Millisecond})
	routeOf(o).home = 0
	early, err := o.Write(t.Context(), batch(outputtest.Numbered("early", 5)))
	if err != nil {
		t.Fatal(err)
	}
	first.Fail(outputtest.Fault{})
	late, err := o.Write(t.Context(), batch(outputtest.Numbered("late", 5)))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(early.Wait(t.Context()), late.Wait(t.Context())); err != nil {
		t.Fatal(err)
	}
	if len(second.Records()) != 5 || len(first.Records()) != 5 {
		t.Errorf("%d and %d records", len(second.Records()), len(first.Records()))
	}
}

// A first address that takes connections and breaks them with something
// outstanding is left; one that closes an idle connection is not.
func TestFailoverFromBreaks(t *testing.T) {
	for transport, framing := range map[Transport]Framing{TCP: OctetCounting, RELP: relpFraming} {
		first, second := newReceiver(t, framing, nil), newReceiver(t, framing, nil)
		o := open(t, Config{Transport: transport, Addresses: []string{first.addr, second.addr}, ConfirmDelay: 100 * time.Millisecond})
		for i := range 3 {
			if err := o.Send(t.Context(), batch(outputtest.Numbered("idle", 5))); err != nil {
				t.Fatal(err)
			}
			first.reset()
			eventually(t.Context(), t, "the break is seen", func() bool { return broken(o) })
			if n := len(first.Records()); n != 5*(i+1) {
				t.Fatalf("%s: %d records at the first", transport, n)
			}
		}
		first.Fail(outputtest.Fault{Mode: outputtest.ResetAfter})
		if err := o.Send(t.Context(), batch(outputtest.Numbered("broken", 5))); err == nil {
			t.Fatalf("%s: acknowledged", transport)
		}
		if err := o.Send(t.Context(), batch(outputtest.Numbered("second", 5))); err != nil {
			t.Fatal(err)
		}
		if err := second.Await(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
	}
}

func broken(o *Output) bool {
	switch to := o.to.(type) {
	case *stream:
		return to.link.ledger.broken() != nil
	case *relp:
		return to.session.broken() != nil
	}
	return false
}

// A first address that swallows connections is left after a while.
func TestFailoverFromSilence(t *testing.T) {
	silent := listenStuck(t)
	second := newReceiver(t, relpFraming, nil)
	o := open(t, Config{Transport: RELP, Addresses: []string{silent, second.addr}, Timeout: 200 * time.Millisecond})
	if err := o.Send(t.Context(), batch(outputtest.Numbered("n", 5))); err != nil {
		t.Fatal(err)
	}
	if n := len(second.Records()); n != 5 {
		t.Errorf("%d records", n)
	}
}

// An attempt that is called off blames no address.
func TestRouteCancelled(t *testing.T) {
	r := &route{targets: make([]target, 3), timeout: time.Second, home: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	err := r.connect(ctx, func(context.Context, *target) error {
		cancel()
		return context.Canceled
	})
	if !errors.Is(err, context.Canceled) || r.at != 0 {
		t.Errorf("%v, at %d", err, r.at)
	}
}

// What is said of several failures: held only where all are.
func TestTogether(t *testing.T) {
	held := &fault.Error{Kind: fault.Held, Op: "a", Err: errors.New("x"), Hint: "do this"}
	passing := &fault.Error{Op: "b", Err: net.ErrClosed}
	if err := together([]error{held, passing}); fault.KindOf(err) != fault.Temporary || err.Error() != "a: x; b: "+net.ErrClosed.Error() ||
		fault.HintOf(err) != "do this" || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := together([]error{held, held}); fault.KindOf(err) != fault.Held {
		t.Errorf("%v", err)
	}
}
