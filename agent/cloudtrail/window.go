package cloudtrail

import "io"

const (
	// firstWindow is how many bytes a window holds at first. It grows only for
	// a record that needs it.
	firstWindow = 128 << 10
	// slack is how many bytes it holds at most beyond the longest record, so
	// that one over the limit shows as such.
	slack = 64 << 10
	// maxIdle is how often in a row a reader may give nothing at all.
	maxIdle = 100
)

// window is the part of an inflated object that a splitter has at hand: all of
// it, or a stretch that slides over what a reader gives.
type window struct {
	src  io.Reader // nil: all there is, is in buf
	buf  []byte
	pos  int   // everything in buf before it is done with
	base int64 // offset of buf[0] in the object

	ended bool  // nothing follows buf
	err   error // why, if that is not the object's end

	most int    // to hold, bytes
	own  []byte // memory for buf with a src
}

func (w *window) resetBytes(data []byte) {
	*w = window{buf: data, ended: true, own: w.own}
}

func (w *window) resetReader(r io.Reader, maxRecord int) {
	most := maxRecord + slack
	own := w.own
	if own == nil {
		own = make([]byte, 0, min(firstWindow, most))
	}
	*w = window{src: r, buf: own, most: most, own: own}
}

// offset returns where in the object pos is.
func (w *window) offset() int64 { return w.base + int64(w.pos) }

// peek steps over white space and returns the byte there. It returns false at
// the end.
func (w *window) peek() (byte, bool) {
	for {
		for ; w.pos < len(w.buf); w.pos++ {
			if c := w.buf[w.pos]; kinds[c] != kindSpace {
				return c, true
			}
		}
		if !w.fetch() {
			return 0, false
		}
	}
}

// fetch gives up what is before pos and fills the window, which it enlarges
// when that frees less than half. It returns false at the end. It
// fills the window to the brim because whoever called it starts over with
// the value at pos.
func (w *window) fetch() bool {
	if w.ended {
		return false
	}
	have := len(w.buf) - w.pos
	if have > cap(w.buf)/2 && cap(w.buf) < w.most {
		w.own = make([]byte, 0, min(2*cap(w.buf), w.most))
	}
	w.base += int64(w.pos)
	w.buf = append(w.own, w.buf[w.pos:]...)
	w.pos = 0
	for idle := 0; len(w.buf) < cap(w.buf) && !w.ended; {
		n, err := w.src.Read(w.buf[len(w.buf):cap(w.buf)])
		w.buf = w.buf[:len(w.buf)+n]
		if n > 0 {
			idle = 0
		} else if idle++; idle == maxIdle && err == nil {
			err = io.ErrNoProgress
		}
		w.ended = err != nil
		if err != io.EOF {
			w.err = err
		}
	}
	return len(w.buf) > have
}
