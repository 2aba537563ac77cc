//go:build !linux

package syslog

import "net"

// queueOf returns what tells how many bytes of conn the peer has not
// acknowledged: here nothing does.
func queueOf(net.Conn) func() (int, error) {
	return func() (int, error) { return 0, errNoQueue }
}
