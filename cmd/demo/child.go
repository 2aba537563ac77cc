package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// child is a program that the demonstration runs.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser // closing it ends a child that was told so
	ended chan struct{}  // closed when it has ended
	err   error          // how it ended; to be read after ended is closed
}

// start runs a program and hands each line of its output on, from one
// goroutine a stream. The program is not bound to a context: it is stopped by
// stop, and if need be killed by it.
func start(program string, args, env []string, stdout, stderr func(line string)) (*child, error) {
	c := &child{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	c.cmd.Env = append(c.cmd.Environ(), env...)
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errs, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	read := make(chan struct{}, 2)
	for stream, to := range map[io.Reader]func(string){out: stdout, errs: stderr} {
		go func() {
			lines := bufio.NewScanner(stream)
			lines.Buffer(nil, 4<<20)
			for lines.Scan() {
				to(lines.Text())
			}
			_, _ = io.Copy(io.Discard, stream) // a line past all bounds must not block the child
			read <- struct{}{}
		}()
	}
	go func() {
		<-read // Wait closes the pipes, so both must be at their ends
		<-read
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// stop asks the child to end, waits, and kills it if it does not. It returns
// how the child ended; nil is exit code 0.
func (c *child) stop(patience time.Duration) error {
	_ = terminate(c.cmd.Process)
	_ = c.stdin.Close()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.ended:
		return c.err
	case <-timer.C:
		_ = c.cmd.Process.Kill()
		<-c.ended
		return fmt.Errorf("did not end within %s and was killed: %w", patience, errors.Join(c.err, context.DeadlineExceeded))
	}
}
