package https

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/trailpoll/trailpoll/agent/output/outputtest"
)

// receiver is an HTTP server with faults.
type receiver struct {
	outputtest.Inbox
	t    *testing.T
	addr string
	tls  *tls.Config // nil for plain http

	mu      sync.Mutex
	fault   outputtest.Fault
	server  *http.Server // nil while it refuses connections
	served  sync.WaitGroup
	healed  chan struct{}
	answer  func(http.ResponseWriter) // instead of taking the records, if set
	last    *http.Request
	content []byte // of the last request, inflated
	format  Format
	handler http.Handler // instead of all that, if set
}

var (
	refusing = outputtest.Fault{Mode: outputtest.Refuse}
	hanging  = outputtest.Fault{Mode: outputtest.Hang}
)

func newReceiver(t *testing.T, conf *tls.Config) *receiver {
	r := &receiver{t: t, addr: "127.0.0.1:0", tls: conf, healed: make(chan struct{})}
	r.listen()
	t.Cleanup(func() {
		r.Fail(outputtest.Fault{})
		r.shut()
	})
	return r
}

func (r *receiver) listen() {
	ln, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Errorf("listening: %v", err)
		return
	}
	r.addr = ln.Addr().String()
	s := &http.Server{Handler: r, TLSConfig: r.tls}
	r.server = s
	r.served.Go(func() {
		if r.tls != nil {
			err = s.ServeTLS(ln, "", "")
		} else {
			err = s.Serve(ln)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			r.t.Errorf("serving: %v", err)
		}
	})
}

func (r *receiver) shut() {
	if r.server != nil {
		_ = r.server.Close() // tests only
		r.server = nil
	}
	r.served.Wait()
}

func (r *receiver) Fail(f outputtest.Fault) {
	r.mu.Lock()
	r.fault = f
	close(r.healed)
	r.healed = make(chan struct{})
	r.mu.Unlock()
	switch {
	case f.Mode == outputtest.Refuse:
		r.shut()
	case r.server == nil:
		r.listen()
	}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	f, healed, answer, handler := r.fault, r.healed, r.answer, r.handler
	r.last = req
	r.mu.Unlock()
	switch {
	case handler != nil:
		handler.ServeHTTP(w, req)
		return
	case answer != nil:
		answer(w)
		return
	case f.Mode == outputtest.Status:
		w.WriteHeader(f.Status)
		return
	case f.Mode == outputtest.ResetBefore:
		panic(http.ErrAbortHandler)
	}
	content, err := io.ReadAll(req.Body)
	if err != nil {
		return // the client gave up
	}
	if int64(len(content)) != req.ContentLength {
		r.t.Errorf("Content-Length %d, body %d", req.ContentLength, len(content))
	}
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(content))
		if err == nil {
			content, err = io.ReadAll(z)
		}
		if err != nil {
			r.t.Errorf("inflating: %v", err)
		}
	}
	records, err := parse(r.format, content)
	if err != nil && f.Mode != outputtest.Hang {
		r.t.Errorf("parsing the body: %v", err)
	}
	r.mu.Lock()
	r.content = content
	r.mu.Unlock()
	r.Put(records...)
	switch f.Mode {
	case outputtest.ResetAfter:
		panic(http.ErrAbortHandler)
	case outputtest.Hang:
		select {
		case <-healed:
			panic(http.ErrAbortHandler)
		case <-req.Context().Done():
		}
	}
	switch r.format {
	case SplunkHEC:
		_, _ = io.WriteString(w, `{"text":"Success","code":0}`)
	case ElasticBulk:
		_, _ = io.WriteString(w, `{"errors":false,"items":[]}`)
	case OTLP:
		w.Header().Set("Content-Type", "application/x-protobuf")
	}
}

// parse takes a body apart without any of the code under test.
func parse(f Format, content []byte) ([][]byte, error) {
	switch f {
	case JSONArray:
		if content[0] != '[' || content[len(content)-1] != ']' {
			return nil, errors.New("no array")
		}
		// A RawMessage holds the element's bytes as they are.
		var list []json.RawMessage
		err := json.Unmarshal(content, &list)
		return raws(list), err
	case SplunkHEC:
		events, err := parseHEC(content)
		var list []json.RawMessage
		for _, e := range events {
			list = append(list, e.Event)
		}
		return raws(list), err
	case ElasticBulk:
		items, err := parseBulk(content)
		var list []json.RawMessage
		for _, i := range items {
			list = append(list, i.document)
		}
		return raws(list), err
	case OTLP:
		var list [][]byte
		logs, err := parseOTLP(content)
		for _, l := range logs {
			list = append(list, []byte(l.record.GetBody().GetStringValue()))
		}
		return list, err
	}
	if !bytes.HasSuffix(content, []byte("\n")) {
		return nil, errors.New("no line feed at the end")
	}
	return bytes.Split(content[:len(content)-1], []byte("\n")), nil
}

func raws(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}

// hecEvent is what HEC takes, and nothing else.
type hecEvent struct {
	Time       json.Number       `json:"time"`
	Host       string            `json:"host"`
	Source     string            `json:"source"`
	Sourcetype string            `json:"sourcetype"`
	Index      string            `json:"index"`
	Event      json.RawMessage   `json:"event"`
	Fields     map[string]string `json:"fields"`
}

func parseHEC(content []byte) (events []hecEvent, err error) {
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	for d.More() {
		var e hecEvent
		if err := d.Decode(&e); err != nil {
			return events, err
		}
		if len(e.Event) == 0 {
			return events, errors.New("an event object without event")
		}
		events = append(events, e)
	}
	return events, nil
}

// bulkItem is an action with its document.
type bulkItem struct {
	Create struct {
		Index string `json:"_index"`
		ID    string `json:"_id"`
	} `json:"create"`
	document []byte
}

func parseBulk(content []byte) (items []bulkItem, err error) {
	lines := bytes.Split(content, []byte("\n"))
	if len(lines)%2 != 1 || len(lines[len(lines)-1]) != 0 {
		return nil, errors.New("no pairs of lines, with a line feed at the end")
	}
	for pair := range slices.Chunk(lines[:len(lines)-1], 2) {
		var i bulkItem
		d := json.NewDecoder(bytes.NewReader(pair[0]))
		d.DisallowUnknownFields()
		if err := d.Decode(&i); err != nil || d.More() || i.Create.ID == "" {
			return items, fmt.Errorf("no action: %q: %w", pair[0], err)
		}
		i.document = pair[1]
		items = append(items, i)
	}
	return items, nil
}

// otlpLog is a record with its resource.
type otlpLog struct {
	resource map[string]string
	record   *logs.LogRecord
}

// parseOTLP reads an ExportLogsServiceRequest. LogsData is the same on the wire,
// and stands in a package that doesn't come with gRPC.
func parseOTLP(content []byte) (all []otlpLog, err error) {
	var request logs.LogsData
	if err := proto.Unmarshal(content, &request); err != nil {
		return nil, err
	}
	if n := len(request.ProtoReflect().GetUnknown()); n > 0 {
		return nil, fmt.Errorf("%d bytes of unknown fields", n)
	}
	for _, r := range request.ResourceLogs {
		for _, s := range r.ScopeLogs {
			if s.Scope.GetName() != "trailpoll" || len(r.ScopeLogs) != 1 {
				return nil, errors.New("the scope")
			}
			for _, l := range s.LogRecords {
				all = append(all, otlpLog{attributes(r.Resource.GetAttributes()), l})
			}
		}
	}
	return all, nil
}

func attributes(list []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		m[kv.Key] = kv.Value.GetStringValue()
	}
	return m
}
