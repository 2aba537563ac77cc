// Package e2e holds the end-to-end tests: the real program, driven by a real
// TOML file, reads from a real S3 server and delivers to receivers over HTTPS
// and syslog. They are named by the invariants that they guard.
//
//	go test -run TestE2E ./cmd/trailpoll/e2e
//
// The S3 server is versitygw (https://github.com/versity/versitygw). The
// environment variable TRAILPOLL_VERSITYGW names its program; else it is
// looked for in PATH and in ~/go/bin. Without it the tests skip, but fail
// where CI=true. With -short they all skip.
package e2e
