package main

import (
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/trailpoll/trailpoll/agent/config"
)

const (
	logFileSize = 50 // MiB, before it is rotated
	logFileKeep = 5  // rotated files
)

// newLogger makes the logger that the configuration asks for; close lets go of
// its file.
func newLogger(c config.Agent, stderr io.Writer) (log zerolog.Logger, closeLog func(), err error) {
	level, err := zerolog.ParseLevel(c.LogLevel)
	if err != nil {
		return zerolog.Nop(), nil, fmt.Errorf("setting the log level: %w", err)
	}
	w, closeLog := stderr, func() {}
	if c.LogFile != "" {
		f := &lumberjack.Logger{Filename: c.LogFile, MaxSize: logFileSize, MaxBackups: logFileKeep}
		w, closeLog = f, func() { _ = f.Close() }
	}
	if c.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.RFC3339, NoColor: c.LogFile != "" || !isTerminal(stderr)}
	}
	return zerolog.New(zerolog.SyncWriter(w)).Level(level).With().Timestamp().Logger(), closeLog, nil
}
