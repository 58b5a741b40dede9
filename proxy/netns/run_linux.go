package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Run runs a command in namespaces of its own and returns its exit code: the
// command's, 128 and the number of the signal that ended it, or one of the
// Exit constants together with an error when it never ran. It returns when
// every process of the command has ended and everything it started has.
//
// When ctx is done the command gets SIGTERM, and SIGKILL after Config.Grace.
// While it runs Run looks after the process's signals itself: SIGTERM ends the
// command in the same way, SIGINT and SIGQUIT are the command's (a terminal
// sends them there too, else they are passed on), as are SIGHUP, SIGUSR1 and
// SIGUSR2. So don't let ctx end at SIGINT. Until the command has started, those
// that end a program end Run, with 128 and their number.
func Run(ctx context.Context, cfg Config) (exitCode int, err error) {
	if err := cfg.check(); err != nil {
		return ExitNotStarted, err
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Interface == "" {
		cfg.Interface = DefaultInterface
	}
	if !cfg.Addr.IsValid() {
		cfg.Addr = ClientAddr
	}
	if cfg.Say == nil {
		cfg.Say = func(line string) { fmt.Fprintln(os.Stderr, "shoal: "+line) }
	}
	command, code, err := findCommand(cfg.Command[0])
	if err != nil {
		return code, err
	}
	listeners, err := listen(cfg.Publish)
	if err != nil {
		return ExitNotStarted, err
	}
	defer closeListeners(listeners)
	r, err := start(ctx, &cfg, command)
	if err != nil {
		return ExitNotStarted, err
	}
	code, err = r.serve(ctx, listeners)
	return code, errors.Join(err, r.wait(err == nil))
}

// runner is one Run, once its child stands.
type runner struct {
	cfg *Config
	cmd *exec.Cmd
	ctl *control
	env []string // of the command

	ready message // what inside said at first
	fds   []int   // what came with it; owned until serve

	network *Network // owned by readLoop

	mu    sync.Mutex
	next  uint64                   // number of the next dial
	dials map[uint64]chan<- dialed // guarded by mu; nil once inside is gone
}

type dialed struct {
	conn net.Conn
	err  error
}

// findCommand resolves name as a shell does.
func findCommand(name string) (path string, code int, err error) {
	path, err = exec.LookPath(name)
	switch {
	case err == nil || errors.Is(err, exec.ErrDot):
		return path, 0, nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EISDIR):
		return "", ExitNotRunable, fmt.Errorf("%s: not an executable program", name)
	}
	return "", ExitNotFound, fmt.Errorf("%s: command not found", name)
}

// start brings up the child in its namespaces and waits until it is ready.
func start(ctx context.Context, cfg *Config, command string) (*runner, error) {
	ctl, theirs, err := newControl()
	if err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	r := &runner{cfg: cfg, ctl: ctl, env: environment(cfg), dials: make(map[uint64]chan<- dialed)}
	err = r.spawn(command, theirs, mapAll())
	if err != nil && os.Geteuid() == 0 && refusal(err) {
		err = r.spawn(command, theirs, mapSelf()) // a root that is not allowed to be one
	}
	theirs.Close()
	if err != nil {
		ctl.conn.Close()
		if refusal(err) {
			return nil, notAllowed(err, executable(), readSysctl)
		}
		if _, missing := os.Stat("/proc/self/exe"); missing != nil {
			return nil, fmt.Errorf("netns: there is no /proc here: mount it (mount -t proc proc /proc), or give the container one (%w)", err)
		}
		return nil, fmt.Errorf("netns: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { ctl.conn.SetReadDeadline(time.Now()) })
	how := setup{Interface: cfg.Interface, Addr: cfg.Addr, Trust: cfg.Trust, NoTUN: cfg.noTUN}
	if err = ctl.send(message{Kind: kindPrepare, Setup: how}); err == nil {
		r.ready, r.fds, err = ctl.receive()
	}
	if stop() && err == nil && r.ready.Kind == kindReady && len(r.fds) > 0 {
		return r, nil
	}
	closeAll(r.fds)
	_ = r.wait(false)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("netns: %w", ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("netns: the process inside ended early: %w", err)
	case r.ready.Denied:
		return nil, notAllowed(errors.New(r.ready.Text), executable(), readSysctl)
	}
	return nil, fmt.Errorf("netns: %s", r.ready.Text)
}

func executable() string {
	exe, err := os.Executable()
	if err != nil {
		return "/usr/bin/shoal"
	}
	return exe
}

// spawn starts this executable again as inside.
func (r *runner) spawn(command string, control *os.File, ids *syscall.SysProcAttr) error {
	cfg := r.cfg
	ids.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET
	if os.Geteuid() != 0 {
		// Who isn't root in a namespace loses its capabilities at exec,
		// except for these.
		ids.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP}
	}
	r.cmd = &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{argInside, command}, cfg.Command...),
		Dir:         cfg.Dir,
		Env:         r.env,
		Stdin:       cfg.Stdin,
		Stdout:      cfg.Stdout,
		Stderr:      cfg.Stderr,
		ExtraFiles:  []*os.File{control},
		SysProcAttr: ids,
		WaitDelay:   time.Second,
	}
	if r.cmd.Stdin == nil {
		r.cmd.Stdin = os.Stdin
	}
	if r.cmd.Stdout == nil {
		r.cmd.Stdout = os.Stdout
	}
	if r.cmd.Stderr == nil {
		r.cmd.Stderr = os.Stderr
	}
	return r.cmd.Start()
}

// environment is the command's: without the proxies of the host's network.
func environment(cfg *Config) []string {
	env := cfg.Env
	if env == nil {
		env = os.Environ()
	}
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
}

// mapSelf keeps this user and group, and knows no other.
func mapSelf() *syscall.SysProcAttr {
	uid, gid := os.Geteuid(), os.Getegid()
	return &syscall.SysProcAttr{
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
	}
}

// mapAll keeps, for root, all the users that it has: a command of root's may
// own files of theirs or become one of them. For others it is mapSelf.
func mapAll() *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return mapSelf()
	}
	uids, err := identity("/proc/self/uid_map")
	gids, err2 := identity("/proc/self/gid_map")
	if err != nil || err2 != nil {
		return mapSelf()
	}
	return &syscall.SysProcAttr{UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: true}
}

// identity maps every id of the map in file to itself.
func identity(file string) ([]syscall.SysProcIDMap, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []syscall.SysProcIDMap
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("%s: %q", file, line)
		}
		first, err := strconv.Atoi(f[0])
		size, err2 := strconv.Atoi(f[2])
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		out = append(out, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: size})
	}
	return out, nil
}

// serve is the namespace's network until the command's last process ends.
func (r *runner) serve(ctx context.Context, listeners []net.Listener) (int, error) {
	l, err := openLink(r.fds[0], r.ready.Road, r.ready.MAC, r.ready.Peer)
	if err != nil {
		closeAll(r.fds[1:])
		return ExitNotStarted, err
	}
	// The Network outlives ctx: a command that is ending says goodbye.
	n, err := newNetwork(context.WithoutCancel(ctx), l, r.cfg.Handler, r.cfg.Addr)
	if err != nil {
		closeAll(r.fds[1:])
		return ExitNotStarted, err
	}
	defer n.close()
	var published sync.WaitGroup
	defer published.Wait()
	defer closeListeners(listeners)
	for _, ln := range listeners {
		n.published = append(n.published, ln.Addr().(*net.TCPAddr).AddrPort())
	}
	defer n.end()
	if r.ready.Text != "" {
		r.cfg.Say(r.ready.Text)
	}
	signals := make(chan os.Signal, 16)
	notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if code := r.beforehand(ctx, n, signals); code != 0 {
		closeAll(r.fds[1:])
		return code, ctx.Err()
	}
	l.start()
	for _, fd := range r.fds[1:] {
		n.resolve(fd)
	}
	var ports []uint16
	for _, p := range r.cfg.Publish {
		ports = append(ports, p.Port)
	}
	slices.Sort(ports)
	if err := r.ctl.send(message{Kind: kindStart, Ports: slices.Compact(ports)}); err != nil {
		return ExitNotStarted, fmt.Errorf("netns: the process inside: %w", err)
	}
	// Not before: inside takes no request for a connection until it was told to start.
	for i, ln := range listeners {
		published.Go(func() { r.publish(n.ctx, ln, r.cfg.Publish[i].Port) })
	}
	r.network = n
	return r.attend(ctx, signals)
}

// beforehand calls Config.Ready, which may take long. It returns the exit code
// when a signal, or the end of ctx, says that the command is not to start.
func (r *runner) beforehand(ctx context.Context, n *Network, signals <-chan os.Signal) (code int) {
	if r.cfg.Ready == nil {
		return 0
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		r.cfg.Ready(ctx, n)
	}()
	for {
		select {
		case <-ready:
			if code == 0 && ctx.Err() != nil {
				return ExitNotStarted
			}
			return code
		case s := <-signals:
			if s != syscall.SIGUSR1 && s != syscall.SIGUSR2 {
				code = 128 + int(s.(syscall.Signal))
				cancel()
			}
		}
	}
}

// attend passes on signals and takes messages until inside says how it ended.
func (r *runner) attend(ctx context.Context, signals <-chan os.Signal) (int, error) {
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		code, err := r.readLoop()
		ended <- end{code, err}
	}()
	stop := func() { _ = r.ctl.send(message{Kind: kindStop, Grace: r.cfg.Grace}) }
	done := ctx.Done()
	for {
		select {
		case e := <-ended:
			return e.code, e.err
		case <-done:
			done = nil
			stop()
		case s := <-signals:
			switch {
			case s == syscall.SIGTERM:
				stop()
			case (s == syscall.SIGINT || s == syscall.SIGQUIT) && foreground():
				// The terminal told the command already.
			default:
				_ = r.ctl.send(message{Kind: kindSignal, Code: int(s.(syscall.Signal))})
			}
		}
	}
}

// readLoop takes inside's messages; it returns the exit code.
func (r *runner) readLoop() (int, error) {
	defer r.dropDials()
	for {
		m, fds, err := r.ctl.receive()
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return ExitNotStarted, errors.New("netns: the process that watches the command died")
		}
		if err != nil {
			return ExitNotStarted, fmt.Errorf("netns: %w", err)
		}
		switch m.Kind {
		case kindExit:
			closeAll(fds)
			return m.Code, nil
		case kindSay:
			closeAll(fds)
			r.cfg.Say(m.Text)
		case kindDialed:
			r.answerDial(m, fds)
		case kindOpen:
			closeAll(fds)
			r.opened(m.Port)
		case kindNotify:
			closeAll(fds)
			notifyManager(r.env, m.Text)
		default:
			closeAll(fds)
		}
	}
}

// wait returns when the child has; clean reports that it announced its end.
func (r *runner) wait(clean bool) error {
	// Its end of the socket sees ours close and kills what it still has.
	r.ctl.conn.Close()
	err := r.cmd.Wait()
	if !clean || errors.Is(err, exec.ErrWaitDelay) {
		return nil // what went wrong is known, or somebody else holds our pipe
	}
	if err != nil {
		return fmt.Errorf("netns: the process inside: %w", err)
	}
	return nil
}

// foreground reports whether this process's group has the terminal: a key that
// sends a signal sends it to every process of the group.
func foreground() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
