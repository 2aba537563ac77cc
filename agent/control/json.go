package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// maxBody is the most bytes that a request's body may have.
const maxBody = 1 << 20

// Failure is the answer to a request that failed.
type Failure struct {
	Schema int    `json:"schema"`
	Error  string `json:"error"`
	// Hint says what an operator can do; left out where nothing is known to help.
	Hint string `json:"hint,omitempty"`
}

// StatusError is an error with the HTTP status that it is answered with. An
// error without one is answered with 500.
type StatusError struct {
	Status int
	Err    error
}

// Error returns the cause's text.
func (e *StatusError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StatusError) Unwrap() error { return e.Err }

// Reply answers a request with v as JSON.
func Reply(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		Fail(w, err)
		return
	}
	header(w)
	_, _ = w.Write(append(b, '\n'))
}

// Fail answers a request with an error: its text, its hint, and the status of
// the StatusError in its chain.
func Fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if e, ok := errors.AsType[*StatusError](err); ok {
		status = e.Status
	}
	b, _ := json.Marshal(Failure{Schema: Schema, Error: err.Error(), Hint: fault.HintOf(err)})
	header(w)
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

func header(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// Read decodes a request's JSON body into v. An unknown member is an error, as
// it may be one that the operator relied on. An empty body leaves v as it is.
func Read(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil && d.More() {
		err = errors.New("more than one JSON value")
	}
	if err != nil {
		return &StatusError{http.StatusBadRequest, &fault.Error{Op: "reading the request", Err: err}}
	}
	return nil
}
