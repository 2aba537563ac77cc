package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// board shows the demonstration: on a terminal one screen that is drawn over
// and over, elsewhere lines. Its methods may be called from any goroutine.
type board struct {
	out   io.Writer
	live  bool // a terminal
	began time.Time

	mu      sync.Mutex
	config  string
	from    string
	bucket  *bucket
	sinks   []*sink
	steps   []string
	records []string
	logs    []string // the agent's, as they came
	brief   []entry  // the same, shortened
	last    []byte   // the newest record, not yet shown
	rates   [][]reading
	lines   int // drawn by the last frame
	stop    chan struct{}
	drawn   sync.WaitGroup
}

// entry is one line of the agent's log, or several with the same message.
type entry struct {
	line, message string
	times         int
}

// String is the entry on one line.
func (e entry) String() string {
	if e.times > 1 {
		return fmt.Sprintf("%s  (the last of %d)", e.line, e.times)
	}
	return e.line
}

// reading is how many records a sink had at a time.
type reading struct {
	at time.Time
	n  int
}

func newBoard(out io.Writer, plain bool) *board {
	f, file := out.(*os.File)
	return &board{out: out, live: !plain && file && isatty.IsTerminal(f.Fd()), began: time.Now(), stop: make(chan struct{})}
}

// open begins to show.
func (b *board) open(config, text, endpoint string, bk *bucket, sinks ...*sink) {
	b.config, b.from, b.bucket, b.sinks = config, endpoint, bk, sinks
	b.rates = make([][]reading, len(sinks))
	fmt.Fprintf(b.out, "configuration %s:\n\n", config)
	for line := range strings.Lines(text) {
		fmt.Fprint(b.out, "    ", line)
	}
	fmt.Fprintln(b.out)
	every := time.Second
	if b.live {
		every = 150 * time.Millisecond
	}
	b.drawn.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.draw()
			case <-b.stop:
				return
			}
		}
	})
}

// close ends the drawing.
func (b *board) close() {
	close(b.stop)
	b.drawn.Wait()
}

// step notes what has just happened.
func (b *board) step(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	line := fmt.Sprintf("%6.1f s  ", time.Since(b.began).Seconds()) + fmt.Sprintf(format, args...)
	b.steps = append(b.steps, line)
	b.say("%s", line)
}

// sample offers a record to be shown.
func (b *board) sample(raw []byte) {
	b.mu.Lock()
	b.last = raw
	b.mu.Unlock()
}

// log takes a line of the agent's log. Lines with the same message are shown
// as one.
func (b *board) log(line string) {
	short, message := condense(line)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.logs = append(b.logs, line)
	if n := len(b.brief); n > 0 && b.brief[n-1].message == message {
		b.brief[n-1] = entry{short, message, b.brief[n-1].times + 1}
		return
	}
	if n := len(b.brief); n > 0 && b.brief[n-1].times > 1 {
		b.say("   agent   %s", b.brief[n-1])
	}
	b.brief = append(b.brief, entry{short, message, 1})
	b.say("   agent   %s", short)
}

// say writes a line where there is no screen. The mutex is held.
func (b *board) say(format string, args ...any) {
	if !b.live {
		fmt.Fprintf(b.out, format+"\n", args...)
	}
}

// lastLog is the end of the agent's log, for when something went wrong.
func (b *board) lastLog() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return "the agent's last lines:\n" + strings.Join(tail(b.logs, 20), "\n")
}

func tail[T any](s []T, n int) []T { return s[max(len(s)-n, 0):] }

// condense shortens a line of JSON log to its level, message and members.
func condense(line string) (short, message string) {
	dec := json.NewDecoder(strings.NewReader(line))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return line, line
	}
	var level string
	var rest []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return line, line
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return line, line
		}
		switch name {
		case "level":
			level = fmt.Sprint(value)
		case "message", "msg":
			message = fmt.Sprint(value)
		case "time":
		default:
			rest = append(rest, fmt.Sprintf("%v=%v", name, value))
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%-5s %s  %s", level, message, strings.Join(rest, " "))), message
}

// describe is a record on one line.
func describe(raw []byte) string {
	var r struct {
		EventTime, EventSource, EventName, EventCategory, EventType, AwsRegion, RecipientAccountID, AccountID, SourceIPAddress string
	}
	if json.Unmarshal(raw, &r) != nil {
		return ""
	}
	at, _ := time.Parse(time.RFC3339, r.EventTime)
	account := r.RecipientAccountID
	if account == "" {
		account = r.AccountID
	}
	what := strings.TrimSuffix(r.EventSource, ".amazonaws.com") + ":" + r.EventName
	if r.EventName == "" {
		what = r.EventType
	}
	return fmt.Sprintf("%s  %s  %-14s  %-28s  %s, %s bytes", at.Format("15:04:05"), account, r.AwsRegion, what, r.SourceIPAddress, thousands(len(raw)))
}

// draw shows the state: a frame on a terminal, a line elsewhere.
func (b *board) draw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != nil {
		if line := describe(b.last); line != "" {
			b.records = append(b.records, line)
		}
		b.last = nil
	}
	c := b.bucket.counts()
	now := time.Now()
	var rates []int
	for i, s := range b.sinks {
		b.rates[i] = append(b.rates[i], reading{now, s.tally.Received()})
		rates = append(rates, rate(b.rates[i]))
	}
	if !b.live {
		fmt.Fprintf(b.out, "%6.1f s  written %s", now.Sub(b.began).Seconds(), thousands(c.records))
		for i, s := range b.sinks {
			fmt.Fprintf(b.out, "   %s %s (%s/s)", s.name, thousands(s.tally.Received()), thousands(rates[i]))
		}
		fmt.Fprintln(b.out)
		if len(b.records) > 0 {
			fmt.Fprintln(b.out, "   record ", b.records[len(b.records)-1])
			b.records = nil
		}
		return
	}
	var f bytes.Buffer
	fmt.Fprintf(&f, "\x1b[1mtrailpoll demo\x1b[0m   %.1f s\n\n", now.Sub(b.began).Seconds())
	fmt.Fprintf(&f, "S3           %s   %s log files, %s records, %d streams; %s other objects\n", b.from, thousands(c.objects), thousands(c.records), c.streams, thousands(c.others))
	for i, s := range b.sinks {
		got := s.tally.Received()
		fmt.Fprintf(&f, "%-12s %s %s of %s   %s/s   %s\n", s.name, bar(got, c.records, 30), thousands(got), thousands(c.records), thousands(rates[i]), s.note())
	}
	section := func(title string, lines []string, n int) {
		fmt.Fprintf(&f, "\n%s\n", title)
		lines = tail(lines, n)
		for _, line := range lines {
			fmt.Fprintln(&f, "  "+line)
		}
		f.WriteString(strings.Repeat("\n", n-len(lines)))
	}
	section("what happened", b.steps, 9)
	section("records as they arrive", b.records, 4)
	var log []string
	for _, e := range tail(b.brief, 6) {
		log = append(log, e.String())
	}
	section("the agent's log", log, 6)
	b.paint(f.Bytes())
}

// paint draws a frame over the one before.
func (b *board) paint(frame []byte) {
	var f bytes.Buffer
	if b.lines > 0 {
		fmt.Fprintf(&f, "\x1b[%dA", b.lines)
	}
	b.lines = 0
	width := columns()
	for line := range bytes.Lines(frame) {
		f.WriteString(clip(strings.TrimRight(string(line), "\n"), width))
		f.WriteString("\x1b[K\n") // clear what the frame before left behind it
		b.lines++
	}
	_, _ = b.out.Write(f.Bytes())
}

// columns is the terminal's width, as the environment has it; wide enough for
// most if it doesn't.
func columns() int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n >= 40 {
		return n
	}
	return 118
}

// clip cuts a line to a width, so that it never wraps.
func clip(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width-1]) + "…"
}

// rate is how many records a second came, over the last two seconds.
func rate(r []reading) int {
	last := r[len(r)-1]
	first := last
	for i := len(r) - 1; i >= 0 && last.at.Sub(r[i].at) <= 2*time.Second+100*time.Millisecond; i-- {
		first = r[i]
	}
	if d := last.at.Sub(first.at).Seconds(); d > 0 {
		return int(float64(last.n-first.n) / d)
	}
	return 0
}

func bar(n, of, width int) string {
	full := 0
	if of > 0 {
		full = min(n*width/of, width)
	}
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// result shows the count.
func (b *board) result(whole bool) {
	if b.live {
		b.draw()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.out, "\n%-12s %10s %10s %10s %10s %10s\n", "", "written", "received", "lost", "repeated", "altered")
	for _, s := range b.sinks {
		r := s.tally.Result()
		fmt.Fprintf(b.out, "%-12s %10s %10s %10s %10s %10s\n", s.name, thousands(r.Written), thousands(r.Received), thousands(r.Lost), thousands(r.Repeated), thousands(r.Altered))
	}
	if whole {
		fmt.Fprintln(b.out, "\nEvery record arrived at both outputs, once, byte for byte.")
	}
}

// thousands writes a number with thin groups: 12 345.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// span writes a duration as a person would.
func span(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
