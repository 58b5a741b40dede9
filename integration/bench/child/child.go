// Package child runs parts of this program as processes of their own, as the
// parties of a network are: what one uses then shows beside the others, and
// none shares a scheduler or a heap with another.
// Not here: what the parts do (packages peer, chain, crowd).
package child

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/shoal-p2p/shoal/integration/process"
)

// role is the variable by which a process knows that it is a child.
const role = "SHOAL_BENCH_CHILD"

// Main makes a child of this process if it was started as one: it serves the
// methods of services (package net/rpc) on its standard streams until its
// parent is done, and then exits. Elsewhere it does nothing. To be called first
// in main and TestMain.
func Main(services ...any) {
	if os.Getenv(role) == "" {
		return
	}
	out := os.Stdout
	os.Stdout = os.Stderr // whatever else is printed would garble the answers
	server := rpc.NewServer()
	for _, s := range services {
		if err := server.Register(s); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(2)
		}
	}
	server.ServeConn(pipes{os.Stdin, out})
	os.Exit(0)
}

// pipes are the two ends of a child's standard streams.
type pipes struct {
	io.ReadCloser
	w io.WriteCloser
}

func (p pipes) Write(b []byte) (int, error) { return p.w.Write(b) }

func (p pipes) Close() error { return errors.Join(p.w.Close(), p.ReadCloser.Close()) }

// Child is a running child of this process. Its methods may be called from any
// goroutine.
type Child struct {
	process *process.Process
	client  *rpc.Client
}

// Start starts a child that is called name in errors and logs to dir.
func Start(name, dir string) (*Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("child %s: %w", name, err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"="+name)
	w, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("child %s: %w", name, err)
	}
	r, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("child %s: %w", name, err)
	}
	p, err := process.Start(name, cmd, filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	return &Child{p, rpc.NewClient(pipes{r, w})}, nil
}

// PID returns the child's process id.
func (c *Child) PID() int { return c.process.PID() }

// Call calls a method of the child's services, SERVICE.METHOD, and waits. A
// child that ended is an error with its last words.
func (c *Child) Call(method string, args, reply any) error {
	err := c.client.Call(method, args, reply)
	if errors.Is(err, rpc.ErrShutdown) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrClosed) {
		return c.process.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// Stop ends the child and returns when it is gone.
func (c *Child) Stop() {
	c.process.Kill() // it holds nothing that is worth an orderly end
	c.client.Close()
}
