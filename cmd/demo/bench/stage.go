package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
	"github.com/trailpoll/trailpoll/agent/agenttest/s3test"
)

// stage is what programs are measured against: a bucket and a receiver, each
// over plain HTTP and over TLS with a certificate of an authority of the
// benchmark's own.
type stage struct {
	s3     *s3test.Server
	to     *receiver
	ca     []byte // PEM
	s3TLS  string // URLs
	toTLS  string
	secure []*http.Server
	served sync.WaitGroup
}

func newStage() (st *stage, err error) {
	st = &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.Close())
		}
	}()
	if st.s3, err = s3test.Start(s3test.Config{}); err != nil {
		return st, err
	}
	if st.to, err = newReceiver(); err != nil {
		return st, err
	}
	ca, err := receivertest.NewCA()
	if err != nil {
		return st, err
	}
	st.ca = ca.PEM()
	cert, err := ca.Issue("127.0.0.1")
	if err != nil {
		return st, err
	}
	// HTTP/1.1 on both, which is what S3 speaks.
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if st.s3TLS, err = st.serve(st.s3, conf); err != nil {
		return st, err
	}
	st.toTLS, err = st.serve(st.to, conf)
	return st, err
}

func (st *stage) serve(h http.Handler, conf *tls.Config) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("opening a port for TLS: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	st.secure = append(st.secure, srv)
	st.served.Go(func() { _ = srv.Serve(tls.NewListener(l, conf)) }) // http.ErrServerClosed
	return "https://" + l.Addr().String(), nil
}

// Close ends all of it.
func (st *stage) Close() (err error) {
	for _, srv := range st.secure {
		err = errors.Join(err, srv.Close())
	}
	st.served.Wait()
	if st.s3 != nil {
		err = errors.Join(err, st.s3.Close())
	}
	if st.to != nil {
		err = errors.Join(err, st.to.Close())
	}
	return err
}

// reset begins to count anew.
func (st *stage) reset() {
	st.to.reset()
	st.s3.ResetCounts()
}
