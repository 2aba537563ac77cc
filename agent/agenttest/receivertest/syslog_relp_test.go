package receivertest_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/agenttest/receivertest"
)

func TestSyslogRELP(t *testing.T) {
	for _, c := range []struct {
		name, sent, answered string
		taken                []string
		problem              string
	}{
		{
			name:     "a session",
			sent:     "1 open 30 relp_version=0\ncommands=syslog\n2 syslog 3 a b\n3 syslog 4 a\nb\n\n4 close 0\n",
			answered: "1 rsp 37 200 OK\nrelp_version=0\ncommands=syslog\n2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rsp 0\n0 serverclose 0\n",
			taken:    []string{"a b", "a\nb\n"},
		},
		{name: "nothing"},
		{name: "no number", sent: "x syslog 1 a\n", problem: "number"},
		{name: "no line feed", sent: "1 syslog 1 ab", problem: "line feed"},
		{name: "too much", sent: "1 syslog 999999999 a", problem: "999999999 bytes"},
		{name: "another command", sent: "1 starttls 0\n", problem: "starttls"},
		{name: "half a frame", sent: "1 syslog 5 a", problem: "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newTaker()
			s, err := receivertest.NewSyslog(receivertest.SyslogConfig{RELP: true, Take: k.take})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			conn, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, c.sent); err != nil {
				t.Fatal(err)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			answered, _ := io.ReadAll(conn)
			if c.problem == "" && string(answered) != c.answered {
				t.Errorf("answered %q, want %q", answered, c.answered)
			}
			if got := k.wait(t, len(c.taken)); strings.Join(got, "|") != strings.Join(c.taken, "|") {
				t.Errorf("took %q", got)
			}
			problems := s.Problems()
			if (c.problem == "") != (len(problems) == 0) || len(problems) > 0 && !strings.Contains(problems[0].Error(), c.problem) {
				t.Errorf("problems %v", problems)
			}
		})
	}
}
