package receivertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// relp reads one RELP session to its end: frames of
//
//	TXNR SP COMMAND SP DATALEN [SP DATA] LF
//
// each answered with a frame "rsp". Answers are sent when nothing more has come.
func (s *Syslog) relp(c net.Conn, in *bufio.Reader) error {
	out := bufio.NewWriter(c)
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			return nil //nolint:nilerr // whoever sent it has gone, and knows of no answer
		}
		txnr, command, data, err := relpFrame(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a RELP frame: %w", err)
		}
		say := "200 OK"
		switch command {
		case "open":
			say += "\nrelp_version=0\ncommands=syslog"
		case "syslog":
			if !s.take(data) {
				reset(c)
				return nil
			}
		case "close":
			_, _ = fmt.Fprintf(out, "%d rsp 0\n0 serverclose 0\n", txnr) // Flush fails as well
			_ = out.Flush()                                              // it may be gone already
			return nil
		default:
			return fmt.Errorf("reading a RELP frame: command %q", command)
		}
		_, _ = fmt.Fprintf(out, "%d rsp %d %s\n", txnr, len(say), say) // Flush fails as well
	}
}

// relpFrame reads one frame; io.EOF only where none has begun.
func relpFrame(in *bufio.Reader) (txnr int, command string, data []byte, err error) {
	if _, err := in.Peek(1); err != nil {
		return 0, "", nil, err
	}
	word, err := in.ReadString(' ')
	if err != nil {
		return 0, "", nil, noEOF(err)
	}
	if txnr, err = strconv.Atoi(word[:len(word)-1]); err != nil || txnr < 1 {
		return 0, "", nil, fmt.Errorf("number %.20q", word)
	}
	if command, err = in.ReadString(' '); err != nil {
		return 0, "", nil, noEOF(err)
	}
	command = command[:len(command)-1]
	n := 0
	for digits := 0; ; digits++ {
		b, err := in.ReadByte()
		switch {
		case err != nil:
			return 0, "", nil, noEOF(err)
		case b == '\n' && digits > 0 && n == 0:
			return txnr, command, nil, nil
		case b == ' ' && digits > 0:
		case b >= '0' && b <= '9' && digits < 9:
			n = n*10 + int(b-'0')
			continue
		default:
			return 0, "", nil, errors.New("no length")
		}
		break
	}
	if n > maxFrame {
		return 0, "", nil, fmt.Errorf("a frame of %d bytes", n)
	}
	data = make([]byte, n+1)
	if _, err := io.ReadFull(in, data); err != nil {
		return 0, "", nil, noEOF(err)
	}
	if data[n] != '\n' {
		return 0, "", nil, errors.New("no line feed at the end")
	}
	return txnr, command, data[:n:n], nil
}
