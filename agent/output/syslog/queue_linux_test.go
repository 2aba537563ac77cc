package syslog

import (
	"errors"
	"net"
	"testing"
	"time"
)

// The queue counts what the peer has not taken, and says so when the peer ended
// the connection, before anybody has read from it.
func TestInvariant1_Queue(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	queued := queueOf(conn)
	if n, err := queued(); n != 0 || err != nil {
		t.Fatalf("before the first byte: %d, %v", n, err)
	}
	// More than all buffers between hold.
	sent := 0
	for sent == 0 { // a busy machine may need longer for the first byte
		_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if sent, err = conn.Write(make([]byte, 64<<20)); err == nil {
			t.Fatalf("64 MiB were taken by a peer that doesn't read")
		}
	}
	n, err := queued()
	if err != nil || n <= 0 || n > sent {
		t.Fatalf("%d of %d bytes queued, %v", n, sent, err)
	}
	_ = peer.Close()
	eventually(t.Context(), t, "the end is seen", func() bool {
		_, err = queued()
		return err != nil
	})
	if !errors.Is(err, errPeerClosed) {
		t.Error(err)
	}
	if _, err := queueOf(struct{ net.Conn }{conn})(); !errors.Is(err, errNoQueue) {
		t.Errorf("a connection that says nothing: %v", err)
	}
}
