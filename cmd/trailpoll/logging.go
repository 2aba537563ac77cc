package main

import (
	"fmt"
	"io"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/fault"
)

const (
	logFileSize = 50 // MiB, before it is rotated
	logFileKeep = 5  // rotated files
)

// logSink is where the log goes. What was opened last takes the lines of all
// loggers, so that a changed configuration can move the log while old loggers
// are still in use. It may be used from any goroutine.
type logSink struct {
	mu    sync.Mutex
	w     io.Writer
	close func()
}

// open makes the logger that the configuration asks for and sends the lines of
// all loggers to where it says. On an error everything stays as it was.
func (s *logSink) open(c config.Agent, stderr io.Writer) (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(c.LogLevel)
	if err != nil {
		return zerolog.Nop(), fmt.Errorf("setting the log level: %w", err)
	}
	w, done := stderr, func() {}
	if c.LogFile != "" {
		f := &lumberjack.Logger{Filename: c.LogFile, MaxSize: logFileSize, MaxBackups: logFileKeep}
		// It opens the file at the first write, and later there is nobody to tell.
		if _, err := f.Write(nil); err != nil {
			return zerolog.Nop(), &fault.Error{Op: "opening the log", Kind: fault.Misconfigured, Err: err,
				Hint: "name a log_file in a directory where the agent's user may write; under systemd that is /var/log/trailpoll, or what ReadWritePaths= names"}
		}
		w, done = f, func() { _ = f.Close() }
	}
	if c.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.RFC3339, NoColor: c.LogFile != "" || !isTerminal(stderr)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.close != nil {
		s.close()
	}
	s.w, s.close = w, done
	logger := zerolog.New(s).Level(level).With().Timestamp().Logger()
	log.SetFlags(0)
	log.SetOutput(strayLines{logger})
	return logger, nil
}

// strayLines takes what libraries say by Go's own log, which would go to
// standard error as it is: net/http does so where a server speaks that was asked
// nothing. What they quote is the other side's, and may be a record or a secret
// that it sends back: it is left out (invariants 10 and 11).
type strayLines struct{ log zerolog.Logger }

// Write takes a line.
func (s strayLines) Write(line []byte) (int, error) {
	said, _, _ := strings.Cut(string(line), `"`)
	const most = 200
	said = strings.TrimSpace(strings.ToValidUTF8(said[:min(len(said), most)], ""))
	s.log.Debug().Str("said", said).Msg("a library has something to say")
	return len(line), nil
}

// Write writes a line to where the log goes now.
func (s *logSink) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(line)
}

// Close lets go of the log's file.
func (s *logSink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.close != nil {
		s.close()
		s.w, s.close = io.Discard, nil
	}
}
