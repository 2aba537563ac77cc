package https

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// indexer answers as Splunk does that acknowledges: each batch gets an id, and
// an acknowledgement is told once.
type indexer struct {
	t *testing.T

	mu      sync.Mutex
	next    int
	asked   int            // questions
	after   int            // how many questions about an id come before it is indexed
	open    map[string]int // by channel and id: questions so far
	status  int            // of the next answer about an acknowledgement; 0 = 200
	channel map[string]bool
	lose    bool // the next acknowledgement that is told is lost
	noID    bool
}

func (x *indexer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	channel := r.Header.Get("X-Splunk-Request-Channel")
	if r.Header.Get("Authorization") != "Splunk T0K3N" || channel == "" {
		x.t.Errorf("headers %v", r.Header)
	}
	switch r.URL.Path {
	case "/proxy/services/collector/event":
		if x.noID {
			_, _ = fmt.Fprint(w, `{"text":"Success","code":0}`)
			return
		}
		x.next++
		x.channel[channel] = true
		x.open[fmt.Sprint(channel, x.next)] = 0
		http.SetCookie(w, &http.Cookie{Name: "indexer", Value: "b", Path: "/"})
		_, _ = fmt.Fprintf(w, `{"text":"Success","code":0,"ackId":%d}`, x.next)
	case "/proxy/services/collector/ack":
		x.asked++
		var q struct{ Acks []int }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || len(q.Acks) != 1 || r.URL.Query().Get("channel") != channel {
			x.t.Errorf("question %v: %v, %s", q, err, r.URL)
			return
		}
		if c, err := r.Cookie("indexer"); err != nil || c.Value != "b" {
			x.t.Errorf("the cookie that leads to the indexer: %v, %v", c, err)
		}
		if x.status != 0 {
			w.WriteHeader(x.status)
			x.status = 0
			return
		}
		key := fmt.Sprint(channel, q.Acks[0])
		n, known := x.open[key]
		if known {
			x.open[key] = n + 1
		}
		done := known && n >= x.after
		if done {
			delete(x.open, key)
			if x.lose {
				x.lose = false
				panic(http.ErrAbortHandler)
			}
		}
		_, _ = fmt.Fprintf(w, `{"acks":{"%d":%t}}`, q.Acks[0], done)
	default:
		x.t.Errorf("path %s", r.URL.Path)
	}
}

// newIndexer returns an output that waits for acknowledgements, for a time that
// a test can wait as well.
func newIndexer(t *testing.T) (*indexer, *Output) {
	x := &indexer{t: t, open: map[string]int{}, channel: map[string]bool{}}
	in := newReceiver(t, nil)
	in.handler = x
	o := open(t, Config{
		URL: "http://" + in.addr + "/proxy/services/collector/event", Format: SplunkHEC, Token: "T0K3N",
		Indexing: Indexing{Ack: true},
	})
	o.acks.first, o.acks.most, o.acks.patience = time.Millisecond, 5*time.Millisecond, 20*time.Second
	return x, o
}

// Splunk's 200 means that it took the batch and not that it is indexed: Send
// returns nil after the acknowledgement, never before.
func TestInvariant1_IndexerAcknowledgement(t *testing.T) {
	x, o := newIndexer(t)
	x.after = 7
	var wg sync.WaitGroup
	for range o.Connections() {
		wg.Go(func() {
			for range 5 {
				if err := o.Send(t.Context(), batch(`{}`)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(x.open) != 0 || x.next != 20 || x.asked != 20*(7+1) || len(x.channel) != 1 {
		t.Errorf("%d batches, %d questions, %d not acknowledged, channels %v", x.next, x.asked, len(x.open), x.channel)
	}
}

func TestAcknowledgementThatDoesNotCome(t *testing.T) {
	t.Run("never indexed", func(t *testing.T) {
		x, o := newIndexer(t)
		x.after = 1 << 30
		o.acks.patience = 50 * time.Millisecond
		err := o.Send(t.Context(), batch(`{}`))
		if !errors.Is(err, errNotAcked) {
			t.Errorf("%v", err)
		}
		expected{kind: fault.Temporary, text: "did not acknowledge", hint: "load balancer"}.check(t, err)
	})
	t.Run("lost on the way", func(t *testing.T) {
		x, o := newIndexer(t)
		x.lose = true
		o.acks.patience = 100 * time.Millisecond
		expected{kind: fault.Temporary, text: "did not acknowledge"}.check(t, o.Send(t.Context(), batch(`{}`)))
	})
	t.Run("busy for a moment", func(t *testing.T) {
		x, o := newIndexer(t)
		x.status = 503
		expected{ok: true}.check(t, o.Send(t.Context(), batch(`{}`)))
	})
	t.Run("token taken away", func(t *testing.T) {
		x, o := newIndexer(t)
		x.status = 403
		expected{kind: fault.Held, text: "403"}.check(t, o.Send(t.Context(), batch(`{}`)))
	})
	t.Run("the token has none", func(t *testing.T) {
		x, o := newIndexer(t)
		x.noID = true
		expected{kind: fault.Held, hint: "ack = false"}.check(t, o.Send(t.Context(), batch(`{}`)))
	})
	t.Run("cancelled", func(t *testing.T) {
		x, o := newIndexer(t)
		x.after = 1 << 30
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := o.Send(ctx, batch(`{}`))
		if !errors.Is(err, context.DeadlineExceeded) || fault.KindOf(err) != fault.Temporary {
			t.Errorf("%v", err)
		}
	})
}

func TestChannel(t *testing.T) {
	a, b := newChannel(), newChannel()
	if a == b || len(a) != 36 || a[14] != '4' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("%s, %s", a, b)
	}
}
