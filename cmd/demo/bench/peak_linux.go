package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// watchPeak follows the peak of a process's resident memory until the returned
// function is called, which returns it in bytes.
//
// It reads VmHWM (proc_pid_status(5)), which only grows, so that little is
// missed between the last look and the end. The peak that wait4 reports is of
// no use: Linux counts into it what the parent had resident when it started
// the child.
func watchPeak(pid int) (peak func() int64) {
	var most int64
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		every := time.NewTicker(5 * time.Millisecond)
		defer every.Stop()
		for {
			most = max(most, highWater(pid))
			select {
			case <-done:
				return
			case <-every.C:
			}
		}
	})
	return func() int64 {
		close(done)
		watching.Wait()
		return most
	}
}

// highWater is a process's VmHWM in bytes; 0 when it has ended.
func highWater(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("\nVmHWM:"))
	line, _, _ := bytes.Cut(rest, []byte(" kB"))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}
