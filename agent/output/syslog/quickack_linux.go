package syslog

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quickAck asks the kernel to acknowledge at once what it has received so far
// of conn (TCP_QUICKACK, see tcp(7), which holds until the kernel decides
// otherwise). A receiver that answers each message with a small write waits for
// the acknowledgement before it sends the next (RFC 896), and by default that
// takes 40 ms while we have nothing to send.
func quickAck(conn net.Conn) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return
	}
	// It makes answers come sooner and nothing else, so what fails is no matter.
	_ = rc.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	})
}
