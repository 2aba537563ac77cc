package syslog

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// established is TCP_ESTABLISHED of the kernel's enum in net/tcp_states.h.
const established = 1

// queueOf returns what tells how many bytes of conn the peer has not
// acknowledged: SIOCOUTQ, see tcp(7). It counts what is not sent yet, too.
func queueOf(conn net.Conn) func() (int, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return func() (int, error) { return 0, errNoQueue }
	}
	return func() (int, error) {
		rc, err := c.SyscallConn()
		if err != nil {
			return 0, err
		}
		var n int
		var failed error
		err = rc.Control(func(fd uintptr) {
			if n, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); failed != nil {
				return
			}
			// Looked at after the queue: the queue's length says something as
			// long as the connection stands, and an end that the reader has yet
			// to be told of must not confirm anything.
			var info *unix.TCPInfo
			if info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); failed == nil &&
				info.State != established {
				failed = errPeerClosed
			}
		})
		if err = errors.Join(err, failed); err != nil {
			return 0, fmt.Errorf("asking what the receiver's machine has: %w", err)
		}
		return n, nil
	}
}
