package render_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/render"
	"github.com/trailpoll/trailpoll/agent/output/syslog"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Over syslog a record that is longer than max_message arrives reduced, in a
// message of its own that is not longer; with park it is named as too large,
// and all others arrive.
func TestReducedOverSyslog(t *testing.T) {
	for _, oversize := range []render.Oversize{render.Reduce, render.Park} {
		for _, form := range []render.Form{render.Raw, render.Envelope, render.CEF, render.OCSF} {
			t.Run(string(oversize)+" "+string(form), func(t *testing.T) {
				const limit = 4096
				receiver, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer receiver.Close()
				r, err := render.New(render.Config{Record: form, Oversize: oversize})
				if err != nil {
					t.Fatal(err)
				}
				out, err := syslog.New(syslog.Config{
					Addresses: []string{receiver.LocalAddr().String()}, Transport: syslog.UDP, MaxMessage: limit, Render: r, Hostname: "host",
				})
				if err != nil {
					t.Fatal(err)
				}
				defer out.Close()
				var b record.Batch
				object := &record.Object{Bucket: "acme-logs", Key: "AWSLogs/k", Account: "111122223333", Region: "us-east-1", LogType: "CloudTrail", Stamp: time.Unix(0, 0)}
				for i, size := range []int{10, 100_000, 10} {
					id := fmt.Appendf(nil, "id-%d", i)
					b.Add(record.Record{
						Object: object, Index: i, EventID: id,
						Raw: fmt.Appendf(nil, `{"eventID":"%s","requestParameters":{"n":0.0,"p":"%s"}}`, id, strings.Repeat("x", size)),
					})
				}
				written, err := out.Write(t.Context(), &b)
				if err == nil && written != nil {
					err = written.Wait(t.Context())
				}
				want := []string{"id-0", "id-1", "id-2"}
				if oversize == render.Park {
					want = []string{"id-0", "id-2"}
					if refused := fault.RefusalsOf(err); fault.KindOf(err) != fault.TooLarge || len(refused) != 1 || refused[0].Index != 1 {
						t.Fatalf("%v", err)
					}
				} else if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 1<<16)
				for _, id := range want {
					if err := receiver.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
						t.Fatal(err)
					}
					n, _, err := receiver.ReadFrom(buf)
					if err != nil {
						t.Fatal(err)
					}
					msg := buf[:n]
					if n > limit || !bytes.Contains(msg, []byte(id)) {
						t.Errorf("%d bytes: %.200s", n, msg)
					}
					if got := bytes.Contains(msg, []byte(`"reduced":["requestParameters"]`)); got != (id == "id-1") {
						t.Errorf("reduced: %v: %.600s", got, msg)
					}
					if _, text, _ := bytes.Cut(msg, []byte(`] `)); form != render.CEF && !json.Valid(text) {
						t.Errorf("no JSON: %.300s", text)
					}
				}
			})
		}
	}
}
