//go:build !linux

package syslog

import "net"

// quickAck does nothing here: the system has no such thing.
func quickAck(net.Conn) {}
