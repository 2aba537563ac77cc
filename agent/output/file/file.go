// Package file writes records as NDJSON, one a line, to a file that it rotates
// (New) or to a writer such as standard output (NewWriter).
//
// A batch is acknowledged when it is on the disk: written and synced. What a
// crash or a full disk leaves of a batch at the end of the file is taken back,
// since the batch was not acknowledged and is sent again.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// Config describes a rotated file.
type Config struct {
	Path string
	// RotateSize: a batch that would make the file longer than this many bytes
	// begins a new one; 0 = never. A batch larger than it makes a longer file.
	RotateSize int64
	// RotateAge: time is parted into periods of this length, counted from
	// midnight UTC of January 1 of year 1, and the first batch of a period
	// begins a new file; 0 = never.
	RotateAge time.Duration
	// Keep is how many rotated files stay, besides the current one; 0 = all. One
	// that somebody compressed (gzip, xz and zstd put .gz, .xz or .zst behind its
	// name) is one still.
	Keep int
	// Render makes of each record what is written; nil = the record as it is.
	Render Renderer
}

// Renderer makes of a record the text that is written for it.
type Renderer interface {
	// Append appends r's text, without a line break; max is 0, which is no
	// limit. It is called from one goroutine at a time. An error is of one of
	// the kinds fault.TooLarge and fault.Refused: that record can't be written.
	Append(dst []byte, r *record.Record, max int) ([]byte, error)
}

// Output writes to one file. It may be used from any goroutine; batches are
// written one after another.
type Output struct {
	conf Config
	op   string

	mu     sync.Mutex
	file   *os.File // nil until needed, and after trouble
	last   time.Time
	buf    []byte
	closed bool
}

// New returns the output that conf describes. It touches no file: the first
// batch does.
func New(conf Config) (*Output, error) {
	if conf.Path == "" {
		return nil, errors.New("setting up a file output: path is empty")
	}
	if conf.RotateSize < 0 || conf.RotateAge < 0 || conf.Keep < 0 {
		return nil, errors.New("setting up a file output: rotate_size, rotate_age and keep can't be negative")
	}
	path, err := filepath.Abs(conf.Path)
	if err != nil {
		return nil, fmt.Errorf("setting up a file output: %w", err)
	}
	conf.Path = path
	return &Output{conf: conf, op: "writing " + path}, nil
}

// Connections is how many goroutines may send at once with use: one.
func (o *Output) Connections() int { return 1 }

// Send appends the batch and syncs the file. On an error the file is as it was
// before, as far as the system allows. Records that hold a line break or can't
// be rendered are left out and named in the error.
func (o *Output) Send(ctx context.Context, b *record.Batch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return &fault.Error{Op: o.op, Err: errClosed}
	}
	if err := ctx.Err(); err != nil {
		return &fault.Error{Op: o.op, Err: err}
	}
	var refused []fault.RecordRefusal
	var kind fault.Kind
	o.buf, refused, kind = lines(o.buf[:0], b, o.conf.Render)
	if err := o.write(); err != nil {
		return o.failed(err)
	}
	return leftOut(o.op, refused, kind)
}

// write appends what is in buf.
func (o *Output) write() error {
	if len(o.buf) == 0 {
		return nil
	}
	now := time.Now()
	size, err := o.ready()
	if err != nil {
		return err
	}
	if size > 0 && o.due(size, now) {
		if size, err = o.rotate(now); err != nil {
			return err
		}
	}
	_, err = o.file.Write(o.buf)
	if err == nil {
		// A crash before this: the batch is not acknowledged and is sent again.
		// What of it reached the disk whole is then there twice.
		err = o.file.Sync()
	}
	if err != nil {
		o.takeBack(size)
		return err
	}
	o.last = now
	return nil
}

// ready opens the file if it isn't, or if what stands at the path is another
// one by now (logrotate moved ours away), and returns its size. The size is
// asked for each time, since logrotate's copytruncate may have emptied the file.
func (o *Output) ready() (size int64, err error) {
	if o.file != nil {
		ours, err1 := o.file.Stat()
		there, err2 := os.Stat(o.conf.Path)
		if err1 == nil && err2 == nil && os.SameFile(ours, there) {
			return ours.Size(), nil
		}
		o.shut()
	}
	return o.open()
}

// open opens the file, or makes it, and cuts off a line that a crash has torn.
func (o *Output) open() (size int64, err error) {
	info, err := os.Stat(o.conf.Path)
	created := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !created:
		return 0, err
	case err == nil && !info.Mode().IsRegular():
		return 0, errNotRegular // opening a FIFO would wait for its reader
	}
	f, err := os.OpenFile(o.conf.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	if info, err = f.Stat(); err == nil {
		size, err = mend(f, o.conf.Path, info.Size())
	}
	if err == nil && created {
		// Without this a power cut could take the name away, and with it all
		// that was synced.
		err = syncDir(filepath.Dir(o.conf.Path))
	}
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	o.file, o.last = f, info.ModTime()
	return size, nil
}

// cefHead is how a record begins that is rendered as CEF; all others are JSON.
var cefHead = []byte("CEF:")

// mend cuts off what stands behind the last line feed and returns the size then.
// Every batch ends with a line feed and is acknowledged only when it is synced,
// so a torn line belongs to a batch that is sent again. What doesn't look like
// the beginning of a record, or like the zeros that file systems leave after a
// power cut, isn't ours to cut.
func mend(f *os.File, path string, size int64) (int64, error) {
	const step = 64 << 10
	end := size
	buf := make([]byte, step)
	for end > 0 {
		p := buf[:min(step, end)]
		if _, err := f.ReadAt(p, end-int64(len(p))); err != nil {
			return 0, fmt.Errorf("reading the last line: %w", err)
		}
		i := bytes.LastIndexByte(p, '\n')
		if i >= 0 {
			end -= int64(len(p) - i - 1)
			break
		}
		end -= int64(len(p))
	}
	if end == size {
		return size, nil
	}
	torn := make([]byte, min(int64(len(cefHead)), size-end))
	if _, err := f.ReadAt(torn, end); err != nil {
		return 0, fmt.Errorf("reading the last line: %w", err)
	}
	if torn[0] != '{' && torn[0] != 0 && !bytes.HasPrefix(cefHead, torn) {
		return 0, errForeign
	}
	if err := truncate(f, path, end); err != nil {
		return 0, fmt.Errorf("cutting off a torn line: %w", err)
	}
	return end, f.Sync()
}

// takeBack makes the file end where it did before a write that failed. Where
// that fails, too, the next open mends the last line; whole lines before it then
// are repeats.
func (o *Output) takeBack(size int64) {
	if err := truncate(o.file, o.conf.Path, size); err == nil {
		_ = o.file.Sync() // nothing was acknowledged that this could lose
	}
	// After a failed sync the system may have dropped what it could not write,
	// and says so once: a new file descriptor asks it again.
	o.shut()
}

// truncate cuts f, which stands at path. Windows lets no file be cut that is
// open for appending alone, so it goes by the name there.
func truncate(f *os.File, path string, size int64) error {
	err := f.Truncate(size)
	if err == nil {
		return nil
	}
	ours, err1 := f.Stat()
	there, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || !os.SameFile(ours, there) {
		return err
	}
	return os.Truncate(path, size)
}

func (o *Output) shut() {
	if o.file != nil {
		_ = o.file.Close() // all that counts was synced before
		o.file = nil
	}
}

// Close closes the file. It may be called more than once.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.shut()
	return nil
}

var (
	errClosed     = errors.New("the output is closed")
	errNotRegular = errors.New("it is not a regular file")
	errForeign    = errors.New("it ends in the middle of a line that is no record")
)

func (o *Output) failed(err error) error {
	e := &fault.Error{Op: o.op, Err: err}
	switch {
	case errors.Is(err, errNotRegular):
		e.Kind, e.Hint = fault.Held, "set path to a file; for a pipe use type = \"stdout\""
	case errors.Is(err, errForeign):
		e.Kind, e.Hint = fault.Held, "set path to a file that nobody else writes, or move this one away"
	case errors.Is(err, fs.ErrPermission):
		e.Kind, e.Hint = fault.Held, "let the agent's user write the file and its directory"
	case errors.Is(err, fs.ErrNotExist):
		e.Kind, e.Hint = fault.Held, "make the directory"
	case errors.Is(err, syscall.EROFS):
		e.Kind, e.Hint = fault.Held, "the file system is read-only"
	case isFull(err):
		// No attempt helps before somebody does something, and until then the
		// others needn't wait. It is tried again slowly.
		e.Kind, e.Hint = fault.Held, "the disk is full: make room, or lower keep and rotate_size"
	}
	return e
}

// lines appends the batch as NDJSON and returns which records it left out: those
// that can't be rendered, and those that hold a line break and would become two.
func lines(dst []byte, b *record.Batch, render Renderer) (out []byte, refused []fault.RecordRefusal, kind fault.Kind) {
	kind = fault.Refused
	out = slices.Grow(dst, b.Bytes+len(b.Records))
	for i := range b.Records {
		start := len(out)
		if render == nil {
			out = append(out, b.Records[i].Raw...)
		} else {
			text, err := render.Append(out, &b.Records[i], 0)
			if err != nil {
				refused = append(refused, fault.RecordRefusal{Index: i, Answer: err.Error(), Unsent: true})
				if fault.KindOf(err) == fault.TooLarge {
					kind = fault.TooLarge
				}
				continue
			}
			out = text
		}
		if bytes.IndexByte(out[start:], '\n') >= 0 {
			out = out[:start]
			refused = append(refused, fault.RecordRefusal{Index: i, Answer: "holds a line break", Unsent: true})
			continue
		}
		out = append(out, '\n')
	}
	return out, refused, kind
}

// leftOut makes the error that names the records which were left out, nil for
// none: of kind fault.TooLarge if one of them is that.
func leftOut(op string, refused []fault.RecordRefusal, kind fault.Kind) error {
	if len(refused) == 0 {
		return nil
	}
	return &fault.Error{
		Kind: kind, Op: op, Err: errors.New("records can't be written: " + refused[0].Answer), Records: refused,
	}
}
