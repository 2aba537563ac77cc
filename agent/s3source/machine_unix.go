//go:build unix

package s3source

import (
	"os/exec"
	"syscall"
)

// endAll has a command's end by its context end all that it started.
func endAll(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
