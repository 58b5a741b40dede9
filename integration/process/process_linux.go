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
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A Ctrl-C at the terminal is ours to hear: we stop the children in order.
	cmd.SysProcAttr.Setpgid = true
}

func ask(p *os.Process) { p.Signal(syscall.SIGTERM) }
