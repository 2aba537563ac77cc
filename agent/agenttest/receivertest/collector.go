package receivertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrNoProgram is the error of a receiver whose program is not there.
var ErrNoProgram = errors.New("is not installed")

// FindProgram looks for a receiver's program where the environment variable
// says, in the folder bin of $TRAILPOLL_CI_CACHE, and in PATH. Its error wraps
// ErrNoProgram and says how to install it.
func FindProgram(name, variable, install string) (string, error) {
	places := []string{os.Getenv(variable)}
	if cache := os.Getenv("TRAILPOLL_CI_CACHE"); cache != "" {
		places = append(places, filepath.Join(cache, "bin", name))
	}
	for _, path := range append(places, "/var/cache/trailpoll-ci/bin/"+name) {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s %w: %s, or name it in %s", name, ErrNoProgram, install, variable)
}

// Collector is an OpenTelemetry Collector that takes OTLP over HTTP, or what is
// sent to Splunk's HTTP Event Collector, and writes each request to a file before it answers: nothing is in its memory that it has
// acknowledged. Its methods are called from one goroutine.
type Collector struct {
	program string
	dir     string
	addr    string
	path    string    // of its URL
	cmd     *exec.Cmd // nil while it doesn't run
	ended   chan struct{}
	said    bytes.Buffer // to be read after it has ended
}

// StartCollector starts the collector of cmd/demo/otelcol over an empty,
// absolute folder. Its error wraps ErrNoProgram where there is none.
func StartCollector(dir string) (*Collector, error) {
	return startCollector(dir, "otelcol", "/v1/logs", `
receivers:
  otlp:
    protocols:
      http:
        endpoint: %s
`, "otlp", "")
}

// StartHEC starts the collector of cmd/demo/otelcol that takes what is sent to
// Splunk's HTTP Event Collector, over an empty, absolute folder. With ack it
// gives ids to ask acknowledgements for, and forgets them when it ends. Its error
// wraps ErrNoProgram where there is none.
func StartHEC(dir string, ack bool) (*Collector, error) {
	receiver, extension := `
receivers:
  splunk_hec:
    endpoint: %s
`, ""
	if ack {
		receiver += `    ack:
      extension: ack
extensions:
  ack:
`
		extension = "  extensions: [ack]\n"
	}
	return startCollector(dir, "otelcol-hec", "/services/collector/event", receiver, "splunk_hec", extension)
}

// startCollector starts a program with a receiver, whose settings have a place
// for its address.
func startCollector(dir, name, path, settings, receiver, service string) (*Collector, error) {
	variable := "TRAILPOLL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	program, err := FindProgram(name, variable, "build it with .ci/fetch collector")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c := &Collector{program: program, dir: dir, addr: addr, path: path}
	conf := fmt.Sprintf(settings, addr) + fmt.Sprintf(`
exporters:
  file:
    path: %s
    append: true
    flush_interval: 0s
service:
%s  telemetry:
    metrics:
      level: none
    logs:
      level: warn
  pipelines:
    logs:
      receivers: [%s]
      exporters: [file]
`, c.File(), service, receiver)
	if err := os.WriteFile(c.conf(), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return c, c.Start()
}

func (c *Collector) conf() string { return filepath.Join(c.dir, "otelcol.yaml") }

// File is what it writes.
func (c *Collector) File() string { return filepath.Join(c.dir, "logs.json") }

// Addr is its host and port.
func (c *Collector) Addr() string { return c.addr }

// URL is where it takes records.
func (c *Collector) URL() string { return "http://" + c.addr + c.path }

// Start starts it, or starts it again, and returns when it takes connections.
func (c *Collector) Start() error {
	c.cmd = exec.Command(c.program, "--config", "file:"+c.conf()) //nolint:gosec // tests name the program themselves
	c.cmd.Stdout, c.cmd.Stderr = &c.said, &c.said
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", c.program, err)
	}
	c.ended = make(chan struct{})
	go func() {
		_ = c.cmd.Wait() // what it says of a kill is known
		close(c.ended)
	}()
	if err := listens(c.addr, c.ended, 60*time.Second); err != nil {
		c.Kill()
		return fmt.Errorf("starting %s: %w\n%s", c.program, err, c.said.Bytes())
	}
	return nil
}

// Kill is kill -9. It returns when the process is gone.
func (c *Collector) Kill() {
	if c.cmd != nil {
		_ = c.cmd.Process.Kill()
		<-c.ended
		c.cmd = nil
	}
}

// Written is how many bytes it has written.
func (c *Collector) Written() int64 {
	info, err := os.Stat(c.File())
	if err != nil {
		return 0
	}
	return info.Size()
}

// LogRecord is a record that a collector stored.
type LogRecord struct {
	// Body is the record; of one that the receiver took apart, what
	// encoding/json makes of its values.
	Body       string
	Attributes map[string]string // of the record and of its resource
}

// Records returns what it wrote, in the order in which it did. What a kill left
// half written is passed over.
func (c *Collector) Records() ([]LogRecord, error) {
	text, err := os.ReadFile(c.File())
	if err != nil {
		return nil, err
	}
	// A quote in a record is escaped, so that this stands at beginnings only.
	const begin = `{"resourceLogs":`
	var all []LogRecord
	for _, part := range bytes.SplitAfter(text, []byte(begin))[1:] {
		var request struct {
			ResourceLogs []struct {
				Resource  struct{ Attributes []attribute }
				ScopeLogs []struct {
					LogRecords []struct {
						Body       value
						Attributes []attribute
					}
				}
			}
		}
		if json.NewDecoder(bytes.NewReader(append([]byte(begin), part...))).Decode(&request) != nil {
			continue
		}
		for _, r := range request.ResourceLogs {
			for _, s := range r.ScopeLogs {
				for _, l := range s.LogRecords {
					out := LogRecord{Body: l.Body.text(), Attributes: map[string]string{}}
					for _, a := range append(r.Resource.Attributes, l.Attributes...) {
						out.Attributes[a.Key] = a.Value.text()
					}
					all = append(all, out)
				}
			}
		}
	}
	return all, nil
}

type attribute struct {
	Key   string
	Value value
}

// value is AnyValue of OTLP in JSON, with nothing set for null.
type value struct {
	StringValue *string
	BoolValue   *bool
	DoubleValue *float64
	ArrayValue  *struct{ Values []value }
	KvlistValue *struct{ Values []attribute }
}

func (v value) text() string {
	if v.StringValue != nil {
		return *v.StringValue
	}
	text, _ := json.Marshal(v.any()) // nothing in it can fail
	return string(text)
}

func (v value) any() any {
	switch {
	case v.StringValue != nil:
		return *v.StringValue
	case v.BoolValue != nil:
		return *v.BoolValue
	case v.DoubleValue != nil:
		return *v.DoubleValue
	case v.ArrayValue != nil:
		all := make([]any, 0, len(v.ArrayValue.Values))
		for _, e := range v.ArrayValue.Values {
			all = append(all, e.any())
		}
		return all
	case v.KvlistValue != nil:
		all := make(map[string]any, len(v.KvlistValue.Values))
		for _, a := range v.KvlistValue.Values {
			all[a.Key] = a.Value.any()
		}
		return all
	}
	return nil
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// listens waits until something takes connections.
func listens(addr string, ended <-chan struct{}, most time.Duration) error {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			return c.Close()
		}
		select {
		case <-look.C:
		case <-ended:
			return errors.New("it ended")
		case <-deadline.C:
			return fmt.Errorf("nothing listens at %s after %v", addr, most)
		}
	}
}
