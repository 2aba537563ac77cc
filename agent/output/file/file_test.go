package file

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

var update = flag.Bool("update", false, "write golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, conf Config) *Output {
	t.Helper()
	o, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func batch(records []record.Record) *record.Batch {
	b := &record.Batch{}
	for _, r := range records {
		b.Add(r)
	}
	return b
}

func send(t *testing.T, o *Output, name string, n int) {
	t.Helper()
	if err := o.Send(t.Context(), batch(outputtest.Numbered(name, n))); err != nil {
		t.Fatalf("sending %s: %v", name, err)
	}
}

// onDisk is the receiver of a file: whoever reads it. Its faults are those of
// the file system.
type onDisk struct {
	t    *testing.T
	path string
}

func (d *onDisk) Records() [][]byte {
	content, err := os.ReadFile(d.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Error(err)
	}
	if len(content) == 0 {
		return nil
	}
	if !bytes.HasSuffix(content, []byte("\n")) {
		d.t.Error("the file ends in the middle of a line")
	}
	return bytes.Split(bytes.TrimSuffix(content, []byte("\n")), []byte("\n"))
}

func (d *onDisk) Await(_ context.Context, n int) error {
	if len(d.Records()) < n {
		return fmt.Errorf("%d records", len(d.Records()))
	}
	return nil
}

// Fail with Refuse puts a directory where the file should be.
func (d *onDisk) Fail(f outputtest.Fault) {
	var err error
	if f.Mode == outputtest.Refuse {
		err = errors.Join(os.Rename(d.path, d.path+".away"), os.Mkdir(d.path, 0o700))
	} else {
		err = errors.Join(os.Remove(d.path), os.Rename(d.path+".away", d.path))
	}
	if err != nil {
		d.t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	outputtest.Run(t, outputtest.Suite{
		Connections: 1,
		New: func(t *testing.T) (outputtest.Output, outputtest.Receiver) {
			d := &onDisk{t, filepath.Join(t.TempDir(), "out.ndjson")}
			return open(t, Config{Path: d.path}), d
		},
		Faults: []outputtest.Case{{Fault: outputtest.Fault{Mode: outputtest.Refuse}, Kind: fault.Held, Hint: true}},
	})
}

// pipe is the reader of what a Writer writes to.
type pipe struct {
	outputtest.Inbox
	mu      sync.Mutex
	fault   outputtest.Fault
	healed  chan struct{}
	pending []byte
}

func (p *pipe) Fail(f outputtest.Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.healed)
	p.healed = make(chan struct{})
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	f, healed := p.fault, p.healed
	p.mu.Unlock()
	switch f.Mode {
	case outputtest.Refuse:
		return 0, io.ErrClosedPipe
	case outputtest.Hang:
		<-healed
		return 0, io.ErrClosedPipe
	case outputtest.ResetAfter: // half of it
		p.pending = append(p.pending, b[:len(b)/2]...)
		return len(b) / 2, errors.New("input/output error")
	}
	p.pending = append(p.pending, b...)
	for {
		line, rest, ok := bytes.Cut(p.pending, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		p.Put(line)
		p.pending = rest
	}
}

func TestWriterConformance(t *testing.T) {
	outputtest.Run(t, outputtest.Suite{
		Connections: 1,
		New: func(t *testing.T) (outputtest.Output, outputtest.Receiver) {
			p := &pipe{healed: make(chan struct{})}
			return NewWriter(p, nil), p
		},
		Faults: []outputtest.Case{
			{Fault: outputtest.Fault{Mode: outputtest.Refuse}, Kind: fault.Held, Hint: true},
			{Fault: outputtest.Fault{Mode: outputtest.ResetAfter}, Kind: fault.Temporary},
		},
	})
}

// A write that blocks is left to itself when the context ends, and the next
// waits for it.
func TestWriterCancel(t *testing.T) {
	p := &pipe{healed: make(chan struct{})}
	o := NewWriter(p, nil)
	p.Fail(outputtest.Fault{Mode: outputtest.Hang})
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := o.Send(ctx, batch(outputtest.Numbered("a", 2))); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
	p.Fail(outputtest.Fault{})
	if err := o.Send(t.Context(), batch(outputtest.Numbered("b", 2))); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Records()); n != 2 {
		t.Errorf("%d records", n)
	}
}

func TestGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	send(t, open(t, Config{Path: path}), "golden", 3)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	outputtest.Golden(t, "file.ndjson", content, *update)
	var stdout bytes.Buffer
	if err := NewWriter(&stdout, nil).Send(t.Context(), batch(outputtest.Numbered("golden", 3))); err != nil {
		t.Fatal(err)
	}
	outputtest.Golden(t, "file.ndjson", stdout.Bytes(), false)
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A crash cuts the file off anywhere: what was whole before stays, what is torn
// goes, and what is sent again then stands there once.
func TestInvariant1_TornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	o := open(t, Config{Path: path})
	send(t, o, "a", 3)
	acked, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	long := `{"x":"` + strings.Repeat("y", 200_000)
	for _, tail := range []string{"", "{", `{"eventID":"b-0"`, "CE", "CEF:0|AWS|Cloud", long, "\x00\x00\x00\x00", strings.Repeat("\x00", 70_000)} {
		if err := os.WriteFile(path, append(bytes.Clone(acked), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		o := open(t, Config{Path: path})
		send(t, o, "b", 2)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(content, acked) || bytes.Count(content, []byte("\n")) != 5 || bytes.Contains(content, []byte("\x00")) {
			t.Errorf("after a tail of %.20q (%d bytes): %.2000q", tail, len(tail), content)
		}
	}
	// Torn in the very first line.
	if err := os.WriteFile(path, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	send(t, open(t, Config{Path: path}), "c", 1)
	if content, _ := os.ReadFile(path); bytes.Count(content, []byte("\n")) != 1 || len(content) > 200 {
		t.Errorf("%.300q", content)
	}
}

// A file that isn't ours is left as it is.
func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	const theirs = "[mysqld]\nCEFoo = mysql"
	if err := os.WriteFile(path, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	err := open(t, Config{Path: path}).Send(t.Context(), batch(outputtest.Numbered("a", 1)))
	if fault.KindOf(err) != fault.Held || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	if content, _ := os.ReadFile(path); string(content) != theirs {
		t.Errorf("%q", content)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestRotateBySize(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, keepOut := range []string{"f-notes", "f-20260101T000000Z.bak", "g-20260101T000000Z"} {
		if err := os.WriteFile(filepath.Join(dir, keepOut), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) { // for its clock, which begins with the year 2000
		o := open(t, Config{Path: path, RotateSize: 280, Keep: 3})
		for i := range 14 { // two go into one file, and seconds agree in pairs
			send(t, o, fmt.Sprintf("n%02d", i), 2)
			if i%4 == 3 {
				time.Sleep(time.Second)
			}
		}
	})
	got := names(t, dir)
	want := []string{
		"f", "f-20000101T000002Z", "f-20000101T000002Z.1", "f-20000101T000003Z",
		"f-20260101T000000Z.bak", "f-notes", "g-20260101T000000Z",
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("\n%s, want\n%s", got, want)
	}
	// What is kept is the newest, whole and in order.
	var all []byte
	for _, name := range []string{want[1], want[2], want[3], want[0]} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(content) > 280 {
			t.Errorf("%s: %d bytes", name, len(content))
		}
		all = append(all, content...)
	}
	var rest []byte
	for i := 6; i < 14; i++ {
		for _, r := range outputtest.Numbered(fmt.Sprintf("n%02d", i), 2) {
			rest = append(append(rest, r.Raw...), '\n')
		}
	}
	if !bytes.Equal(all, rest) {
		t.Errorf("\n%s, want\n%s", all, rest)
	}
}

// Rotated files may be compressed by somebody else: they are kept as long, and
// no new one takes the name of one.
func TestRotatedAndCompressed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, name := range []string{
		"f-19990101T000000Z.gz", "f-19990102T000000Z", "f-19990102T000000Z.gz", "f-19990103T000000Z.2.zst", "f-19990103T000000Z.10.xz",
		"f-20000101T000000Z.gz",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Config{Path: path, RotateSize: 100, Keep: 3})
		send(t, o, "a", 1)
		send(t, o, "b", 1)
	})
	want := "f f-19990103T000000Z.10.xz f-20000101T000000Z.1 f-20000101T000000Z.gz"
	if got := strings.Join(names(t, dir), " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// rendered makes of each record its number, or an error, or two lines.
type rendered struct{}

func (rendered) Append(dst []byte, r *record.Record, most int) ([]byte, error) {
	switch r.Index {
	case 1:
		return append(dst, "half"...), &fault.Error{Kind: fault.TooLarge, Op: "reducing"}
	case 2:
		return append(dst, "a\nb"...), nil
	}
	if most != 0 {
		return nil, errors.New("a file has no limit")
	}
	return fmt.Appendf(dst, "{%d}", r.Index), nil
}

// What is written is what the renderer makes; what it can't make is left out.
func TestRender(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var stdout bytes.Buffer
	for _, o := range []outputtest.Output{open(t, Config{Path: path, Render: rendered{}}), NewWriter(&stdout, rendered{})} {
		err := o.Send(t.Context(), batch(outputtest.Numbered("n", 5)))
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != fault.TooLarge || len(e.Records) != 2 || e.Records[0].Index != 1 || e.Records[1].Index != 2 {
			t.Fatalf("%+v", err)
		}
	}
	const want = "{0}\n{3}\n{4}\n"
	if content, err := os.ReadFile(path); err != nil || string(content) != want || stdout.String() != want {
		t.Errorf("%q, %q: %v", content, stdout.String(), err)
	}
}

// A file that is deleted while it is written begins anew, and so does one whose
// directory went and came back.
func TestDeleted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	path := filepath.Join(dir, "f")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o := open(t, Config{Path: path})
	send(t, o, "a", 2)
	if err := os.Remove(path); err != nil {
		t.Skip(err) // Windows deletes no open file
	}
	send(t, o, "b", 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	err := o.Send(t.Context(), batch(outputtest.Numbered("c", 1)))
	if fault.KindOf(err) != fault.Held || !strings.Contains(fault.HintOf(err), "directory") {
		t.Fatalf("%v: %s", err, fault.HintOf(err))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	send(t, o, "d", 3)
	if d := (&onDisk{t, path}); len(d.Records()) != 3 {
		t.Errorf("%s", d.Records())
	}
}

func TestRotateByAge(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	synctest.Test(t, func(t *testing.T) {
		conf := Config{Path: path, RotateAge: 24 * time.Hour}
		o := open(t, conf)
		send(t, o, "a", 1)
		time.Sleep(23 * time.Hour)
		send(t, o, "b", 1) // the same day
		time.Sleep(time.Hour)
		send(t, o, "c", 1)
		// Across a restart, by the file's own time.
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		send(t, open(t, conf), "d", 1)
	})
	want := "f f-20000102T000000Z f-20000103T000000Z"
	if got := strings.Join(names(t, dir), " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// logrotate moves the file away, or copies and empties it.
func TestMovedAndEmptied(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	o := open(t, Config{Path: path})
	send(t, o, "a", 2)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Skip(err) // Windows moves no open file
	}
	send(t, o, "x", 1)
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil { // logrotate's "create"
		t.Fatal(err)
	}
	send(t, o, "b", 2)
	if d := (&onDisk{t, path}); len(d.Records()) != 2 {
		t.Errorf("%s", d.Records())
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	send(t, o, "c", 3)
	if content, _ := os.ReadFile(path); bytes.Count(content, []byte("\n")) != 3 || bytes.Contains(content, []byte{0}) {
		t.Errorf("%q", content)
	}
}

// A line break in a record would make two lines of it.
func TestInvariant11_LineBreakIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	records := outputtest.Numbered("n", 3)
	records[1].Raw = []byte("{\n}")
	err := open(t, Config{Path: path}).Send(t.Context(), batch(records))
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.Refused || len(e.Records) != 1 || e.Records[0].Index != 1 {
		t.Fatalf("%+v", err)
	}
	if n := len((&onDisk{t, path}).Records()); n != 2 {
		t.Errorf("%d records", n)
	}
}

// Whatever stands at the end of a file, mending keeps all whole lines and
// leaves no torn one.
func TestMendProperty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	rapid.Check(t, func(rt *rapid.T) {
		content := []byte(rapid.StringMatching(`(\{[a-z]{0,40}\}\n){0,6}(\{[a-z]{0,80})?`).Draw(rt, "content"))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			rt.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		size, err := mend(f, path, int64(len(content)))
		if err != nil {
			rt.Fatal(err)
		}
		want := content[:bytes.LastIndexByte(content, '\n')+1]
		if got, _ := os.ReadFile(path); !bytes.Equal(got, want) || size != int64(len(want)) {
			rt.Fatalf("%q of %q, size %d", got, content, size)
		}
	})
}

func TestBadConfig(t *testing.T) {
	for _, c := range []Config{{}, {Path: "x", Keep: -1}, {Path: "x", RotateAge: -1}, {Path: "x", RotateSize: -1}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
