//go:build unix && !linux

package process

import (
	"os"
	"os/exec"
	"syscall"
)

func setDeathSignal(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}

func ask(p *os.Process) { p.Signal(syscall.SIGTERM) }
