package control

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
)

// Server serves the control socket. Routes are added before Serve is called,
// which may be called once.
type Server struct {
	mux *http.ServeMux
	log zerolog.Logger
}

// NewServer makes a Server that knows no route yet. It starts nothing.
func NewServer(log zerolog.Logger) *Server {
	s := &Server{mux: http.NewServeMux(), log: log}
	s.Handle("GET "+pingPath, func(http.ResponseWriter, *http.Request) (any, error) {
		return struct {
			Schema int `json:"schema"`
		}{Schema}, nil
	})
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		Fail(w, &StatusError{http.StatusNotFound, errors.New("no such request: " + r.Method + " " + r.URL.Path)})
	})
	return s
}

// Handle adds a route: "GET /v1/status", as http.ServeMux takes it. What f
// returns is answered as JSON; an error with its text, its hint and the status
// of a StatusError in its chain.
func (s *Server) Handle(pattern string, f func(w http.ResponseWriter, r *http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		v, err := f(w, r)
		if err != nil {
			Fail(w, err)
			return
		}
		Reply(w, v)
	})
}

// stopWithin is how long requests under way may take when the agent stops.
const stopWithin = 2 * time.Second

// Serve answers requests that come over l until ctx ends, and returns when all
// are answered or broken off. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, s.mux, s.log)
}

// serve runs an HTTP server until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler, logger zerolog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(debugWriter{logger}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // what waits ends with the agent
	}
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-ended:
		}
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if srv.Shutdown(within) != nil {
			_ = srv.Close()
		}
	}()
	err := srv.Serve(l)
	close(ended)
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// debugWriter takes what net/http has to say of broken connections.
type debugWriter struct{ log zerolog.Logger }

func (d debugWriter) Write(p []byte) (int, error) {
	d.log.Debug().Bytes("http", p).Msg("a request failed")
	return len(p), nil
}
