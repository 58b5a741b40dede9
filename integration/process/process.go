// Package process starts programs that must not outlive whoever started them,
// and stops them by their id.
// Not here: which programs, and what they say.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// stopGrace is how long a process may take to leave after it was asked to.
const stopGrace = 30 * time.Second

// tail is how much of a process's last words an error repeats, bytes.
const tail = 2048

// Process is a running program. Its methods may be called from any goroutine.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	gone chan struct{} // closed when the process has been waited for
	err  error         // what Wait returned; read after gone
}

// Start starts cmd, sends its output to the file log (appended; its folder is
// made) unless cmd has outputs of its own, and calls it name in errors. On
// Linux the process dies with this one, however this one ends.
func Start(name string, cmd *exec.Cmd, log string) (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = f
	}
	if cmd.Stderr == nil {
		cmd.Stderr = f
	}
	setDeathSignal(cmd)

	p := &Process{name: name, cmd: cmd, log: log, gone: make(chan struct{})}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// run starts the process and waits for it on one thread, because the kernel
// sends the death signal when the thread that started the process ends.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.gone)
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Gone is closed when the process has ended.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Err says how the process ended, with its last words. It waits for the end.
func (p *Process) Err() error {
	<-p.gone
	how := "it exited"
	if p.err != nil {
		how = p.err.Error()
	}
	words := p.LastWords()
	if words == "" {
		return fmt.Errorf("%s: %s", p.name, how)
	}
	return fmt.Errorf("%s: %s: %s", p.name, how, words)
}

// ExitCode waits for the end and returns the exit code, -1 for a signal's.
func (p *Process) ExitCode() int {
	<-p.gone
	return p.cmd.ProcessState.ExitCode()
}

// LastWords returns the end of what the process has written to its log.
func (p *Process) LastWords() string {
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(0, info.Size()-tail)
	words := make([]byte, info.Size()-from)
	n, _ := f.ReadAt(words, from)
	return strings.TrimSpace(string(words[:n]))
}

// Stop asks the process to leave, kills it when it stays, and returns once it
// is gone.
func (p *Process) Stop() error {
	select {
	case <-p.gone:
		return nil
	default:
	}
	ask(p.cmd.Process)
	select {
	case <-p.gone:
		return nil
	case <-time.After(stopGrace):
		p.Kill()
		return fmt.Errorf("%s: did not leave within %v and was killed", p.name, stopGrace)
	}
}

// Kill ends the process at once and returns when it is gone.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.gone
}

// StopAll stops all of ps at once and returns when they are gone.
func StopAll(ps []*Process) error {
	errs := make(chan error)
	for _, p := range ps {
		go func() { errs <- p.Stop() }()
	}
	var all []error
	for range ps {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// Until calls done every so often until it says true; it gives up with the
// last error of done when ctx ends, and with the process's when one of ps does.
func Until(ctx context.Context, every time.Duration, done func() (bool, error), ps ...*Process) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := errors.New("not yet")
	for {
		ok, err := done()
		if ok {
			return nil
		}
		if err != nil && ctx.Err() == nil { // else it says only that
			last = err
		}
		for _, p := range ps {
			select {
			case <-p.gone:
				return p.Err()
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}
