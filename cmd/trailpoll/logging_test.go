package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/config"
)

// net/http prints by Go's own log what a server says unasked. That is a line of
// our log, and holds nothing of what was said.
func TestInvariant10And11_WhatLibrariesSay(t *testing.T) {
	t.Cleanup(func() {
		log.SetOutput(io.Discard)
		log.SetFlags(log.LstdFlags)
	})
	out := make(logLines, 8)
	sink := &logSink{}
	if _, err := sink.open(config.Agent{LogLevel: "debug", LogFormat: "json"}, out); err != nil {
		t.Fatal(err)
	}
	defer sink.Close()

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	answered := make(chan struct{})
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		<-answered
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\nthe-token\n{\"eventID\":\"a-record\"}")
		_, _ = io.Copy(io.Discard, c)
	}()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	close(answered)
	var text string
	select {
	case text = <-out:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was logged")
	}
	if strings.Contains(text, "the-token") || strings.Contains(text, "eventID") || !strings.Contains(text, "Unsolicited response") {
		t.Errorf("logged: %s", text)
	}
	if strings.Count(text, "\n") != 1 || !json.Valid([]byte(text)) {
		t.Errorf("no line of the log: %q", text)
	}
}

// logLines takes what is written, a line at a time.
type logLines chan string

func (l logLines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}
