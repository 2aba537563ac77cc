//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// Listen makes the control socket of a state directory that exists. The caller
// holds the state: a socket that is there was left by an agent that is gone,
// and is replaced. The listener removes it when it is closed.
func Listen(stateDir string) (net.Listener, error) {
	path := filepath.Join(stateDir, SocketName)
	l, err := listen(stateDir, path)
	if err != nil {
		return nil, &fault.Error{
			Kind: fault.Misconfigured, Op: "making the control socket " + path, Err: err,
			Hint: "set state_dir to a directory on a local disk, with a path that is not very long",
		}
	}
	return l, nil
}

func listen(stateDir, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("there is something of that name that is no socket")
	}
	// Between bind and chmod a socket has the mode that the umask leaves it. So
	// it is made where nobody else can reach it, and renamed, which takes the
	// place of one that a crash left.
	dir, err := os.MkdirTemp(stateDir, ".control-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, "s")
	short, release, err := shorten(dir, "s")
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // its name is another one by then
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &socket{UnixListener: l, path: path, made: info}, nil
}

// socket is the listener of a socket that was renamed.
type socket struct {
	*net.UnixListener
	path string
	made fs.FileInfo
}

// Close ends the listening and removes the socket, if it is still this one.
func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if info, lerr := os.Lstat(s.path); lerr == nil && os.SameFile(info, s.made) {
		_ = os.Remove(s.path)
	}
	return err
}

// maxPath is the longest path that fits into a sockaddr_un of all systems
// (unix(7): 108 bytes on Linux, 104 on the BSDs, with a zero behind it).
const maxPath = 103

// shorten returns a path of the file in dir that is short enough for a socket.
// Linux has one through an open directory for any; release closes that.
func shorten(dir, name string) (path string, release func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("the path has %d bytes, and no more than %d fit", len(path), maxPath)
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), name), func() { _ = d.Close() }, nil
}

// dial opens a connection to the agent that serves the socket of a state
// directory.
func dial(ctx context.Context, stateDir string) (net.Conn, error) {
	path := filepath.Join(stateDir, SocketName)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, ErrNoAgent
	case err != nil:
		return nil, denied(path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, ErrNoAgent
	}
	short, release, err := shorten(stateDir, SocketName)
	if err != nil {
		return nil, err
	}
	defer release()
	c, err := new(net.Dialer).DialContext(ctx, "unix", short)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, ErrLeft
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNoAgent
	case err != nil:
		return nil, denied(path, err)
	}
	return c, nil
}

func denied(path string, err error) error {
	hint := ""
	if errors.Is(err, fs.ErrPermission) {
		hint = "run the command as root or as the user that the agent runs as"
	}
	return &fault.Error{Kind: fault.Denied, Op: "opening the control socket " + path, Err: err, Hint: hint}
}
