//go:build unix

package control_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trailpoll/trailpoll/agent/control"
	"github.com/trailpoll/trailpoll/agent/fault"
)

func TestSocketMode(t *testing.T) {
	// Whatever the umask and the directory's mode.
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, nil)
	info, err := os.Lstat(filepath.Join(dir, control.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != os.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", got)
	}
}

// A crash leaves the socket: it is told from no agent, and the next one takes
// its place.
func TestSocketLeftByCrash(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, control.SocketName)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := control.Connect(t.Context(), dir); !errors.Is(err, control.ErrLeft) || !errors.Is(err, control.ErrNoAgent) {
		t.Errorf("got %v, want ErrLeft", err)
	}
	serve(t, dir, nil)
	connect(t, dir)
}

// What is no socket is not removed.
func TestListenRefusesToReplaceFile(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, control.SocketName)
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(dir); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Error("the file is gone")
	}
	if _, err := control.Connect(t.Context(), dir); !errors.Is(err, control.ErrNoAgent) {
		t.Errorf("got %v, want ErrNoAgent", err)
	}
}

// A state directory may have a path longer than a socket's address can hold.
func TestSocketInLongPath(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a way around the limit")
	}
	dir := filepath.Join(shortDir(t), strings.Repeat("d", 200))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	stop := serve(t, dir, nil)
	connect(t, dir)
	stop()
	if _, err := control.Connect(t.Context(), dir); !errors.Is(err, control.ErrNoAgent) {
		t.Errorf("got %v, want ErrNoAgent", err)
	}
}

func TestSocketDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may open every socket")
	}
	dir := shortDir(t)
	serve(t, dir, nil)
	if err := os.Chmod(filepath.Join(dir, control.SocketName), 0); err != nil {
		t.Fatal(err)
	}
	_, err := control.Connect(t.Context(), dir)
	if fault.KindOf(err) != fault.Denied || fault.HintOf(err) == "" {
		t.Errorf("got %v, want it denied with a hint", err)
	}
}

func skipOnWine(*testing.T) {}

// An agent that hangs is told from none, and does not hang the command.
func TestConnectToHungAgent(t *testing.T) {
	dir := shortDir(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, control.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = control.Connect(ctx, dir)
	if err == nil || errors.Is(err, control.ErrNoAgent) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
}
