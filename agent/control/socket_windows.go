package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"github.com/trailpoll/trailpoll/agent/fault"
	acl "github.com/trailpoll/trailpoll/installer/windows"
)

// pipeACL lets the system, administrators and the owner of the pipe open it,
// and nobody else (Security Descriptor Definition Language, Microsoft Learn).
const pipeACL = "D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;OW)"

// pipeName is the pipe of a state directory.
func pipeName(stateDir string) (string, error) {
	dir, err := filepath.Abs(stateDir)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.ToLower(filepath.Clean(dir))))
	return `\\.\pipe\trailpoll-` + hex.EncodeToString(sum[:12]), nil
}

// Listen makes the control pipe of a state directory. It is made as the first
// of its name: where somebody else has one already, that is an error. A pipe
// ends with its process, so none is left by a crash.
func Listen(stateDir string) (net.Listener, error) {
	name, err := pipeName(stateDir)
	if err != nil {
		return nil, err
	}
	l, err := winio.ListenPipe(name, &winio.PipeConfig{SecurityDescriptor: pipeACL})
	if err != nil {
		return nil, &fault.Error{
			Kind: fault.Misconfigured, Op: "making the control pipe " + name, Err: err,
			Hint: "find out which program has a pipe of this name: it may not be trusted",
		}
	}
	return l, nil
}

// dial opens a connection to the agent that serves the pipe of a state
// directory, and makes sure that the pipe is that agent's.
func dial(ctx context.Context, stateDir string) (net.Conn, error) {
	name, err := pipeName(stateDir)
	if err != nil {
		return nil, err
	}
	c, err := winio.DialPipeContext(ctx, name) // with SECURITY_ANONYMOUS: the other side can't act as us
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNoAgent
	case errors.Is(err, fs.ErrPermission):
		return nil, &fault.Error{
			Kind: fault.Denied, Op: "opening the control pipe " + name, Err: err,
			Hint: "run the command as an administrator, or as the account that the agent runs as",
		}
	case err != nil:
		return nil, fmt.Errorf("opening the control pipe %s: %w", name, err)
	}
	if err := trusted(c, stateDir); err != nil {
		_ = c.Close()
		return nil, &fault.Error{
			Kind: fault.Denied, Op: "opening the control pipe " + name, Err: err,
			Hint: "another program has taken the agent's place: find out which",
		}
	}
	return c, nil
}

// trusted makes sure that the pipe belongs to whom the state belongs to: the
// system, administrators, the service, the owner of the state directory's lock, or this
// process's own user.
func trusted(c net.Conn, stateDir string) error {
	h, ok := c.(interface{ Fd() uintptr })
	if !ok {
		return errors.New("the pipe has no handle to ask for its owner")
	}
	sd, err := windows.GetSecurityInfo(windows.Handle(h.Fd()), windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("asking for its owner: %w", err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("asking for its owner: %w", err)
	}
	if owner.IsWellKnown(windows.WinLocalSystemSid) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) {
		return nil
	}
	if owner.String() == acl.ServiceSID("trailpoll") { // the service's account, which it is alone to have
		return nil
	}
	if u, err := windows.GetCurrentProcessToken().GetTokenUser(); err == nil && owner.Equals(u.User.Sid) {
		return nil
	}
	if o, err := defaultOwner(); err == nil && owner.Equals(o) {
		return nil
	}
	lock := filepath.Join(stateDir, "checkpoint.lock")
	if _, err := os.Lstat(lock); err == nil {
		sd, err := windows.GetNamedSecurityInfo(lock, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
		if err == nil {
			if o, _, err := sd.Owner(); err == nil && owner.Equals(o) {
				return nil
			}
		}
	}
	return fmt.Errorf("its owner %s does not own the state", owner)
}

// defaultOwner is who owns what this process makes: its user, or for an
// administrator that whole group.
func defaultOwner() (*windows.SID, error) {
	var n uint32
	token := windows.GetCurrentProcessToken()
	err := windows.GetTokenInformation(token, windows.TokenOwner, nil, 0, &n)
	if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || n < uint32(unsafe.Sizeof(uintptr(0))) {
		return nil, fmt.Errorf("asking for the token's owner: %w", err)
	}
	// TOKEN_OWNER is one pointer to a SID that lies behind it in the buffer.
	b := make([]uintptr, n/uint32(unsafe.Sizeof(uintptr(0)))+1)
	if err := windows.GetTokenInformation(token, windows.TokenOwner, (*byte)(unsafe.Pointer(&b[0])), n, &n); err != nil {
		return nil, fmt.Errorf("asking for the token's owner: %w", err)
	}
	return (*(**windows.SID)(unsafe.Pointer(&b[0]))).Copy()
}
