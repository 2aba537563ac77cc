package control_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve serves a control socket in dir until the test ends, or stop.
func serve(t *testing.T, dir string, routes func(*control.Server)) (stop func()) {
	t.Helper()
	skipOnWine(t)
	s := control.NewServer(zerolog.Nop())
	if routes != nil {
		routes(s)
	}
	l, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func connect(t *testing.T, dir string) *control.Client {
	t.Helper()
	c, err := control.Connect(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

type greeting struct {
	Name string `json:"name"`
}

func TestSocketAnswers(t *testing.T) {
	dir := shortDir(t)
	stop := serve(t, dir, func(s *control.Server) {
		s.Handle("POST /v1/greet", func(w http.ResponseWriter, r *http.Request) (any, error) {
			var g greeting
			if err := control.Read(w, r, &g); err != nil {
				return nil, err
			}
			if g.Name == "nobody" {
				return nil, &control.StatusError{Status: http.StatusConflict, Err: &fault.Error{
					Op: "greeting", Err: errors.New("there is nobody"), Hint: "name somebody",
				}}
			}
			return greeting{"hello " + g.Name}, nil
		})
	})
	c := connect(t, dir)
	var got greeting
	if err := c.Do(t.Context(), "POST", "/v1/greet", greeting{"you"}, &got); err != nil || got.Name != "hello you" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, x := range []struct {
		path   string
		in     any
		status int
		says   string
		hint   string
	}{
		{"/v1/greet", greeting{"nobody"}, http.StatusConflict, "greeting: there is nobody", "name somebody"},
		{"/v1/greet", map[string]int{"surname": 1}, http.StatusBadRequest, `unknown field "surname"`, ""},
		{"/v1/greet", "text", http.StatusBadRequest, "reading the request", ""},
		{"/v1/none", nil, http.StatusNotFound, "no such request: POST /v1/none", ""},
	} {
		err := c.Do(t.Context(), "POST", x.path, x.in, nil)
		se, ok := errors.AsType[*control.StatusError](err)
		if !ok || se.Status != x.status || !strings.Contains(err.Error(), x.says) || fault.HintOf(se.Err) != x.hint || fault.HintOf(err) != x.hint {
			t.Errorf("%s %v: got %v (hint %q), want %d %q (hint %q)", x.path, x.in, err, fault.HintOf(err), x.status, x.says, x.hint)
		}
	}
	stop()
	if _, err := control.Connect(t.Context(), dir); !errors.Is(err, control.ErrNoAgent) || errors.Is(err, control.ErrLeft) {
		t.Errorf("after an orderly stop: %v, want ErrNoAgent and not ErrLeft", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A request that waits ends when the agent does.
func TestSocketStopsWithWaitingRequest(t *testing.T) {
	dir := shortDir(t)
	entered := make(chan struct{})
	stop := serve(t, dir, func(s *control.Server) {
		s.Handle("GET /v1/wait", func(_ http.ResponseWriter, r *http.Request) (any, error) {
			close(entered)
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
	})
	c := connect(t, dir)
	done := make(chan error)
	go func() { done <- c.Do(context.Background(), "GET", "/v1/wait", nil, nil) }()
	<-entered
	began := time.Now()
	stop()
	if err := <-done; err == nil {
		t.Error("the request succeeded")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

func TestConnectWithoutAgent(t *testing.T) {
	for _, dir := range []string{shortDir(t), filepath.Join(shortDir(t), "missing")} {
		_, err := control.Connect(t.Context(), dir)
		if !errors.Is(err, control.ErrNoAgent) || errors.Is(err, control.ErrLeft) {
			t.Errorf("%s: %v, want ErrNoAgent", dir, err)
		}
	}
}

func TestConnectUnused(t *testing.T) {
	dir := shortDir(t)
	stop := serve(t, dir, nil)
	c, err := control.Connect(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	stop() // goleak sees a connection that is left
}

// A second agent never comes so far, since the state is held; but if it did, the
// first one's end must not take the second one's socket away.
func TestCloseLeavesAnothersSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a pipe of that name can be there once only")
	}
	dir := shortDir(t)
	first := serve(t, dir, nil)
	serve(t, dir, nil)
	first()
	connect(t, dir)
}
