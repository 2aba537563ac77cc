package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/trailpoll/trailpoll/checkpoint"
)

// farewell is an output whose receiver is gone when it is closed.
type farewell struct{ closed chan<- struct{} }

func (f farewell) Close() error {
	close(f.closed)
	return errors.New("sending the farewell: broken pipe")
}

// A receiver that breaks the connection while it is being closed ends neither a
// reload nor an orderly stop with an error.
func TestShiftsOutliveAFailedClose(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "trailpoll.toml")
	text := fmt.Sprintf(`[agent]
state_dir = %q
listen = ""
[[source]]
name = "s"
bucket = "a-bucket"
region = "us-east-1"
endpoint = "http://127.0.0.1:1"
path_style = true
organizations = ["none"]
accounts = ["111122223333"]
regions = ["us-east-1"]
log_types = ["CloudTrail"]
credentials = { type = "static", access_key_id = "AKIDEXAMPLE", secret_access_key = "env:TRAILPOLL_TEST_SECRET" }
[[output]]
name = "o"
type = "file"
path = %q
`, dir, filepath.Join(dir, "records"))
	t.Setenv("TRAILPOLL_TEST_SECRET", "not-a-secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &cobra.Command{}
	c.Flags().String("config", path, "")
	c.SetOut(io.Discard)
	c.SetErr(io.Discard)
	conf, err := load(c)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire(conf, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	w.closers = append(w.closers, farewell{closed})
	store, _, err := checkpoint.Open(dir, checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := &runner{c: c, manager: nobody{}, orders: newOrders(), sink: &logSink{}, store: store, log: zerolog.Nop()}
	defer r.sink.Close()
	r.desk = newDesk(store, r.log)
	answered := make(chan error, 1)
	go func() {
		answered <- r.orders.askReload(t.Context())
		<-closed
		r.orders.orderStop("the test")
	}()
	if _, err := r.shifts(t.Context(), conf, w); err != nil {
		t.Errorf("the agent ended: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the reload: %v", err)
	}
}
