package netns

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

const (
	// daemonStart is within which time a command that ends well and leaves
	// processes behind is taken for one that went to the background.
	daemonStart = 10 * time.Second

	// leftGrace is how long what a command leaves behind has to end.
	leftGrace = 2 * time.Second

	// orphanGrace is how long the command has when Run is gone: nobody serves
	// its network any more.
	orphanGrace = 3 * time.Second

	// killEvery is how often the tree is searched for survivors of SIGKILL:
	// children of what was killed become ours, and are killed in turn.
	killEvery = 10 * time.Millisecond
)

// supervisor starts the command and ends when no process of its is left.
type supervisor struct {
	ctl     *control
	command []string       // path, then arguments
	own     *overlay       // the command's own files
	notify  *net.UnixConn  // from the command to its service manager; nil for none
	hearing sync.WaitGroup // hearNotify

	main    int // the command's process
	started time.Time
	code    int // of the command, once it ended
	ended   bool
	stop    bool // it was told to end

	asked map[int]bool // children that were sent SIGTERM

	deadline <-chan time.Time // when to kill
	kill     <-chan time.Time // ticks while killing
}

// exited is one child that was waited for; none when there are no more.
type exited struct {
	pid    int
	status syscall.WaitStatus
	none   bool
}

func (s *supervisor) run() {
	// Orphans of the command come to us, whatever they did to get away.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "shoal: %v\n", err)
	}
	// A key like ^C reaches every process at the terminal. The command
	// decides what it means; we stay for as long as the command.
	notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGPIPE)

	messages := make(chan message)
	go s.readLoop(messages)
	m, ok := <-messages
	if !ok || m.Kind != kindStart || !s.start() {
		return
	}
	if s.notify != nil {
		s.hearing.Go(s.hearNotify)
	}
	go s.watch(m.Ports)
	exits := make(chan exited)
	go reap(exits)
	keep := time.NewTicker(keepEvery)
	defer keep.Stop()
	for {
		select {
		case <-keep.C:
			s.own.keep()
		case m, ok := <-messages:
			if !ok {
				messages = nil
				s.end(orphanGrace)
			} else {
				s.handle(m)
			}
		case e := <-exits:
			if e.none {
				s.drainNotify()
				_ = s.ctl.send(message{Kind: kindExit, Code: s.code})
				return
			}
			s.childEnded(e)
		case <-s.deadline:
			tick := time.NewTicker(killEvery)
			defer tick.Stop()
			s.deadline, s.kill = nil, tick.C
			signalChildren(syscall.SIGKILL)
		case <-s.kill:
			signalChildren(syscall.SIGKILL)
		}
	}
}

// readLoop passes on Run's messages and closes the channel when Run is gone.
func (s *supervisor) readLoop(messages chan<- message) {
	defer close(messages)
	for {
		m, fds, err := s.ctl.receive()
		closeAll(fds)
		if err != nil {
			return
		}
		messages <- m
	}
}

// start runs the command, or sends its exit code and returns false.
func (s *supervisor) start() bool {
	s.started = time.Now()
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{argCommand}, s.command...), &syscall.ProcAttr{
		Env:   s.environment(),
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "shoal: can't start a process: %v\n", err)
		_ = s.ctl.send(message{Kind: kindExit, Code: ExitNotStarted})
		return false
	}
	s.main = pid
	return true
}

// environment is the command's: what Run gave to this process, and what names
// our files.
func (s *supervisor) environment() []string {
	env := os.Environ()
	drop := func(names ...string) {
		env = slices.DeleteFunc(env, func(v string) bool {
			name, _, _ := strings.Cut(v, "=")
			return slices.Contains(names, name)
		})
	}
	if s.notify == nil {
		drop(notifyVariable)
	}
	if file := s.own.trusted(); file != "" {
		drop(append(trustVariables, "SSL_CERT_DIR")...)
		for _, name := range trustVariables {
			env = append(env, name+"="+file)
		}
	}
	return env
}

func (s *supervisor) handle(m message) {
	switch m.Kind {
	case kindDial:
		go s.dial(m.ID, m.Port)
	case kindSignal:
		if s.ended {
			signalChildren(syscall.Signal(m.Code))
		} else {
			_ = syscall.Kill(s.main, syscall.Signal(m.Code))
		}
	case kindStop:
		s.end(m.Grace)
	}
}

// end asks the command to end, and kills what is left after grace.
func (s *supervisor) end(grace time.Duration) {
	if s.stop {
		return
	}
	s.stop = true
	s.deadline = time.After(grace)
	s.ask()
}

// ask sends SIGTERM, once, to the command, and when that has ended to every
// process it left behind.
func (s *supervisor) ask() {
	pids := []int{s.main}
	if s.ended {
		pids = children()
	}
	for _, pid := range pids {
		if s.asked[pid] {
			continue
		}
		s.asked[pid] = true
		_ = syscall.Kill(pid, syscall.SIGTERM)
		_ = syscall.Kill(pid, syscall.SIGCONT) // a stopped one would never hear it
	}
}

// childEnded is told of every child that was waited for.
func (s *supervisor) childEnded(e exited) {
	delete(s.asked, e.pid)
	if e.pid == s.main && !s.ended {
		s.mainEnded(e.status)
	} else if s.stop && s.ended {
		s.ask() // its children are ours now
	}
}

// mainEnded takes the exit code. What the command leaves behind ends too,
// unless the command was one that goes to the background.
func (s *supervisor) mainEnded(status syscall.WaitStatus) {
	s.ended = true
	s.code = status.ExitStatus()
	if status.Signaled() {
		s.code = 128 + int(status.Signal())
	}
	left := children()
	if len(left) == 0 {
		return
	}
	if !s.stop && s.code == 0 && time.Since(s.started) < daemonStart {
		_ = s.ctl.send(message{Kind: kindSay, Text: "the command went to the background; waiting for it there"})
		return
	}
	if !s.stop {
		s.stop = true
		s.deadline = time.After(leftGrace)
	}
	s.ask()
}

// reap waits for children until there are none.
func reap(exits chan<- exited) {
	for {
		var e exited
		var err error
		e.pid, err = syscall.Wait4(-1, &e.status, 0, nil)
		switch err {
		case nil:
			exits <- e
		case syscall.EINTR:
		default:
			exits <- exited{none: true}
			return
		}
	}
}

// signalChildren signals every child of this process.
func signalChildren(sig syscall.Signal) {
	for _, pid := range children() {
		_ = syscall.Kill(pid, sig)
	}
}

// children lists this process's children that still run.
func children() []int {
	all, _ := proc.Children(os.Getpid()) // without /proc there are none to be seen
	return all
}

// notify is signal.Notify without the signals that this process was told to
// ignore, as nohup does: noticing them would undo that for the command.
func notify(c chan<- os.Signal, sigs ...os.Signal) {
	for _, s := range sigs {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
}
