// Package control is what the operator sees and can order: a socket in the
// state directory over which the commands speak with the agent that runs, and
// the page, metrics and health that it serves on a port.
//
// Over the socket goes HTTP with JSON bodies; docs/api.md describes it. Only
// whoever may open the socket gets to it: on Unix it has mode 0600, on Windows
// it is a named pipe that its owner, administrators and the system may open.
package control

// Schema is the version of all JSON that the commands and the socket give. A
// new member does not change it; one that goes or gets another meaning does.
const Schema = 1

// SocketName is the control socket's file in the state directory. On Windows
// the pipe's name is made of that path.
const SocketName = "control.sock"
