package https

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/record"
)

// bodies makes the bodies of requests and keeps their memory for the next. A
// body is built whole before it is sent, so that its length is known, and the
// batch's memory isn't needed when the transport is slow to let go of it.
type bodies struct {
	compress bool
	encoders chan *gzip.Writer // idle ones, at most one a connection: they are large
	buffers  spares
}

func newBodies(conns int, compress bool) bodies {
	return bodies{
		compress: compress,
		encoders: make(chan *gzip.Writer, conns),
		buffers:  make(spares, conns+1),
	}
}

// spares are idle buffers, one a connection and one to be filled meanwhile. They
// are not in a sync.Pool, which every garbage collection would empty: the
// buffers are as large as batches.
type spares chan *bytes.Buffer

func (s spares) get() *bytes.Buffer {
	select {
	case b := <-s:
		return b
	default:
		return new(bytes.Buffer)
	}
}

func (s spares) put(b *bytes.Buffer) {
	b.Reset()
	select {
	case s <- b:
	default:
	}
}

// body is one request's body. Its buffer goes back to the spares when nobody
// holds it any more: http.RoundTripper may go on to read a body after RoundTrip
// returned, until it closes it.
type body struct {
	buf    *bytes.Buffer
	spares spares
	refs   atomic.Int32
}

func (b *body) release() {
	if b.refs.Add(-1) == 0 {
		b.spares.put(b.buf)
	}
}

// reader returns a reader of the whole body, which holds the body until it is
// closed.
func (b *body) reader() io.ReadCloser {
	b.refs.Add(1)
	return &bodyReader{r: bytes.NewReader(b.buf.Bytes()), body: b}
}

// bodyReader is one reading of a body. Read and Close exclude each other, since
// HTTP/2 may close a body that is being read when a request is given up, and
// the memory is another batch's from then on. For the same reason it has no
// WriteTo, which would hand out all of the buffer at once; net/http would not
// call it either, as it reads a body of known length through an io.LimitReader.
type bodyReader struct {
	mu   sync.Mutex
	r    *bytes.Reader
	body *body // nil once closed
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return r.r.Read(p)
}

func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body != nil {
		r.body.release()
		r.body = nil
	}
	return nil
}

// encode returns the batch as a body, which the caller releases, and the
// records that it left out, ascending: those that hold a line break (in NDJSON
// each would become two, and the contract of record.Record rules them out
// anyway) and those that have no form to be sent in.
func (bs *bodies) encode(f *form, b *record.Batch) (*body, []fault.RecordRefusal, error) {
	out := &body{buf: bs.buffers.get(), spares: bs.buffers}
	out.refs.Store(1)
	if !bs.compress {
		fit(out, b.Bytes+len(b.Records)*f.layout.around()+2)
		refused, _ := f.write(out.buf, b) // a bytes.Buffer takes everything
		return out, refused, nil
	}
	enc := bs.encoder()
	enc.Reset(out.buf)
	refused, err := f.write(enc, b)
	if err = errors.Join(err, enc.Close()); err != nil {
		out.release()
		return nil, nil, err
	}
	select {
	case bs.encoders <- enc:
	default:
	}
	return out, refused, nil
}

// bodyStep is to what the size of a new buffer is rounded up, in bytes.
const bodyStep = 64 << 10

// fit makes sure that b's buffer, which is empty, has room for n bytes. One
// that is too small is replaced: bytes.Buffer.Grow would double it, and batches
// that differ by a record would each come to hold twice their size.
func fit(b *body, n int) {
	if b.buf.Cap() < n {
		b.buf = bytes.NewBuffer(make([]byte, 0, (n+bodyStep-1)/bodyStep*bodyStep))
	}
}

func (bs *bodies) encoder() *gzip.Writer {
	select {
	case enc := <-bs.encoders:
		return enc
	default:
		// The level is a constant that the package knows, so there is no error.
		// BestSpeed: JSON still shrinks to a tenth, at a third of the CPU.
		enc, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
		return enc
	}
}
