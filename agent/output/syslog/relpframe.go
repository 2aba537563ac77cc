package syslog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// RELP as its authors describe it (doc/relp.html of librelp):
//
//	FRAME    = TXNR SP COMMAND SP DATALEN [SP DATA] LF
//	TXNR     = 1*9DIGIT, from 1 to 999999999 and then from 1 again; 0 is a hint,
//	           which nobody answers
//	COMMAND  = 1*32ALPHA
//	DATALEN  = 1*9DIGIT, of DATA
//	response = CODE [SP TEXT] [LF what the command asked for], CODE = 3DIGIT
const (
	maxTxnr = 999_999_999
	// maxAnswer is the longest DATA that a receiver may send: it has nothing to
	// say but a line, and to the opening its offers.
	maxAnswer = 16 << 10
)

// relpFrame is a frame that was read.
type relpFrame struct {
	txnr    int
	command string
	data    []byte
}

var errNoRELP = errors.New("the receiver's answer is no RELP")

// readRELP reads one frame. io.EOF means that the connection ended before it;
// an error that is errNoRELP, that something else came.
func readRELP(in *bufio.Reader) (f relpFrame, err error) {
	txnr, end, err := readNumber(in)
	if err != nil {
		return f, err
	}
	if end != ' ' {
		return f, noRELP("no space behind the number")
	}
	f.txnr = txnr
	if f.command, err = readCommand(in); err != nil {
		return f, midFrame(err)
	}
	n, end, err := readNumber(in)
	if err != nil {
		return f, midFrame(err)
	}
	if n > maxAnswer {
		return f, noRELP(fmt.Sprintf("%d bytes at once", n))
	}
	if end == '\n' {
		if n > 0 {
			return f, noRELP("no data")
		}
		return f, nil
	}
	f.data = make([]byte, n)
	if _, err := io.ReadFull(in, f.data); err != nil {
		return f, midFrame(err)
	}
	if end, err = in.ReadByte(); err != nil {
		return f, midFrame(err)
	}
	if end != '\n' {
		return f, noRELP("no line feed at the end of a frame")
	}
	return f, nil
}

// readNumber reads one to nine digits and the space or line feed behind them.
func readNumber(in *bufio.Reader) (n int, end byte, err error) {
	for digits := 0; ; digits++ {
		c, err := in.ReadByte()
		switch {
		case err != nil && digits > 0:
			return 0, 0, midFrame(err)
		case err != nil:
			return 0, 0, err
		case (c == ' ' || c == '\n') && digits > 0:
			return n, c, nil
		case c < '0' || c > '9' || digits == 9:
			return 0, 0, noRELP("no number where one must be")
		}
		n = n*10 + int(c-'0')
	}
}

// readCommand reads up to 32 letters and the space behind them.
func readCommand(in *bufio.Reader) (string, error) {
	var name []byte
	for {
		c, err := in.ReadByte()
		switch {
		case err != nil:
			return "", err
		case c == ' ' && len(name) > 0:
			return string(name), nil
		case (c|0x20 < 'a' || c|0x20 > 'z') || len(name) == 32:
			return "", noRELP("no command where one must be")
		}
		name = append(name, c)
	}
}

func noRELP(what string) error { return fmt.Errorf("%w: %s", errNoRELP, what) }

// midFrame makes an end within a frame an error.
func midFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// answer is what the DATA of a response says.
type answer struct {
	code int    // 200 = done
	text string // printable, on one line, shortened
	rest []byte // behind the first line
}

// parseAnswer reads the DATA of a response.
func parseAnswer(data []byte) (a answer, err error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	a.rest = rest
	if len(data) == 0 { // so librelp answers the end of a session
		return a, nil
	}
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' {
		return a, noRELP("a response without a code")
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return a, noRELP("a response without a code")
		}
		a.code = a.code*10 + int(c-'0')
	}
	const most = 120
	if text := strings.TrimSpace(string(line[3:])); text != "" {
		a.text = " " + strconv.Quote(text[:min(len(text), most)])
	}
	return a, nil
}

func (a answer) String() string {
	return fmt.Sprintf("the receiver answered %d%s", a.code, a.text)
}

// offers reports whether the receiver's offers, which come with its answer to
// the opening, have a value in a list. found is false if there is no such list.
func (a answer) offers(name, value string) (yes, found bool) {
	for line := range strings.Lines(string(a.rest)) {
		if list, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return slices.Contains(strings.Split(list, ","), value), true
		}
	}
	return false, false
}

// appendRELP appends the head of a frame: all that stands before its DATA.
func appendRELP(b []byte, txnr int, command string, n int) []byte {
	b = append(strconv.AppendInt(b, int64(txnr), 10), ' ')
	b = append(append(b, command...), ' ')
	b = strconv.AppendInt(b, int64(n), 10)
	if n > 0 {
		b = append(b, ' ')
	}
	return b
}
