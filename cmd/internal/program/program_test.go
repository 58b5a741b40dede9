package program

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/circuit/state"
)

// asProgram is the variable by which this test binary runs as a small program:
// "hang" stops well and then never ends, "save" prints and then writes a file.
const asProgram = "SHOAL_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	Main(&cli.App{Name: "small", Action: Stoppable(func(c *cli.Context) error {
		fmt.Println("ready")
		<-c.Context.Done()
		fmt.Println("stopping")
		if file := os.Getenv(asProgram); file != "hang" {
			return os.WriteFile(file, nil, 0o600)
		}
		select {}
	})})
	os.Exit(0)
}

// small starts the small program and returns what it prints.
func small(t *testing.T, does string) (*exec.Cmd, *bufio.Scanner, io.Closer) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProgram+"="+does)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() { late.Stop(); cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("it said %q", lines.Text())
	}
	return cmd, lines, out
}

func TestASecondInterruptEndsAtOnce(t *testing.T) {
	cmd, lines, _ := small(t, "hang")
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGTERM} {
		cmd.Process.Signal(s) // none of which may end it
	}
	if !lines.Scan() || lines.Text() != "stopping" {
		t.Fatalf("after signals it said %q", lines.Text())
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != interrupted {
		t.Errorf("it ended with %v, want exit code %d", cmd.ProcessState, interrupted)
	}
}

func TestAProgramOutlivesTheReaderOfItsOutput(t *testing.T) {
	saved := filepath.Join(t.TempDir(), "saved")
	cmd, _, out := small(t, saved)
	out.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Stat(saved); err != nil {
		t.Error("it did not save")
	}
}

// ran returns what an app with the log flags got from args.
func ran(args ...string) (l *slog.Logger, err error) {
	app := &cli.App{Name: "small", Flags: LogFlags("info"), Action: func(c *cli.Context) (err error) {
		l, err = Logger(c)
		return err
	}}
	prepare(app)
	before := slog.Default()
	defer slog.SetDefault(before)
	err = app.Run(append([]string{"small"}, args...))
	return l, err
}

func TestLogLevels(t *testing.T) {
	for _, c := range []struct {
		args string
		want slog.Level
	}{
		{"", slog.LevelInfo}, {"--verbose", slog.LevelDebug}, {"--log-level debug", slog.LevelDebug}, {"--log-level info", slog.LevelInfo},
		{"--log-level WARN", slog.LevelWarn}, {"--log-level error --log-format json", slog.LevelError}, {"--verbose --log-level debug", slog.LevelDebug},
	} {
		l, err := ran(strings.Fields(c.args)...)
		if err != nil {
			t.Fatalf("%q: %v", c.args, err)
		}
		if !l.Enabled(t.Context(), c.want) || l.Enabled(t.Context(), c.want-1) {
			t.Errorf("%q logs from another level than %v", c.args, c.want)
		}
	}
}

// explained returns what Explain makes of err in a program with --listen.
func explained(err error, listen string) string {
	var text string
	app := &cli.App{Name: "small", Flags: []cli.Flag{
		&cli.StringFlag{Name: "state", Value: "folder"}, &cli.StringFlag{Name: "listen", Value: listen}, &cli.StringFlag{Name: "advertise"},
	}, Action: func(c *cli.Context) error {
		text = Explain(c, err, Several{"relay", []string{"--state DIR", "--listen 0.0.0.0:9002"}}).Error()
		return nil
	}}
	prepare(app)
	if err := app.Run([]string{"small"}); err != nil {
		return err.Error()
	}
	return text
}

func TestRefusalsOfTheSystemAreExplained(t *testing.T) {
	listen := func(addr string, errno syscall.Errno) error {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Errorf("listen: %w", &net.OpError{Op: "listen", Net: "tcp", Addr: a, Err: os.NewSyscallError("bind", errno)})
	}
	for _, c := range []struct {
		err          error
		listen, want string
	}{
		{fmt.Errorf("x: %w", state.ErrInUse), "", "another relay uses the state folder folder; to run a second one give it its own --state DIR --listen 0.0.0.0:9002"},
		{listen("127.0.0.1:1", addressInUse), "127.0.0.1:1", "--listen: 127.0.0.1:1 is in use by another program; choose another port, or to run a second relay give it its own --state DIR --listen 0.0.0.0:9002"},
		{listen("203.0.113.5:9001", addressNotOurs), "203.0.113.5:9001", "--listen: 203.0.113.5 is not an address of this machine, which has "},
		{listen("0.0.0.0:80", notAllowed), "0.0.0.0:80", "--listen: 0.0.0.0:80: ports below 1024 are reserved for root: choose another one"},
		{listen("0.0.0.0:8080", notAllowed), "0.0.0.0:8080", "--listen: 0.0.0.0:8080: permission denied"},
		{listen("0.0.0.0:8080", addressInUse), ":8080", "--listen: 0.0.0.0:8080 is in use by "},
		{errors.New("something else"), "0.0.0.0:8080", "something else"},
	} {
		if got := explained(c.err, c.listen); !strings.HasPrefix(got, c.want) {
			t.Errorf("%v is explained as %q, want %q", c.err, got, c.want)
		}
	}
}
