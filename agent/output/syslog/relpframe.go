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

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/redact"
	"github.com/trailpoll/trailpoll/agent/record"
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
	text string // the rest of the first line, shortened
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
	text := strings.TrimSpace(string(line[3:]))
	a.text = text[:min(len(text), maxText)]
	return a, nil
}

// maxText is how much of an answer's text is kept, in bytes.
const maxText = 120

// String is for an answer to what was no record: it may quote what it answers.
func (a answer) String() string {
	if a.text == "" {
		return fmt.Sprintf("the receiver answered %d", a.code)
	}
	return fmt.Sprintf("the receiver answered %d %q", a.code, a.text)
}

// refusal is a frame that was answered with anything but 200.
type refusal struct {
	index  int // of the record, in its batch
	answer answer
}

// refusals says of the records what was answered, without what the answers quote
// of the batch.
func refusals(all []refusal, b *record.Batch) []fault.RecordRefusal {
	if len(all) == 0 {
		return nil
	}
	texts := make([][]byte, len(all))
	for i := range all {
		texts[i] = []byte(all[i].answer.text)
	}
	out := make([]fault.RecordRefusal, len(all))
	for i, text := range redact.Records(texts, b.Records, maxText) {
		a := answer{code: all[i].answer.code, text: string(text)}
		out[i] = fault.RecordRefusal{Index: all[i].index, Answer: a.String()}
	}
	return out
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
