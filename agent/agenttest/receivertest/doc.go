// Package receivertest holds receivers to deliver to: HTTP and HTTPS, and
// syslog over UDP, TCP, TLS and RELP, on loopback ports that the system chooses.
// They hand on each record exactly as it came, can be slow, refuse, lose their
// answer or break off, and a Tally says afterwards what was lost, came twice
// or was altered.
//
// Beside them are receivers that nobody here wrote, as processes (NewRsyslog,
// NewSyslogNG), and a network that can be cut (NewWire).
//
// They serve tests, benchmarks and the demo, and import nothing of testing.
// Each New… starts what it needs and Close ends all of it.
package receivertest
