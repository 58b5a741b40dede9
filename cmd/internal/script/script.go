// Package script runs a command's test scripts: testdata/script/*.txtar, in the
// language of testscript with a few more verbs. The test binary runs itself as
// the command.
// Not here: the scripts, which stand beside each command.
//
//	exits CODE PROGRAM [ARG…]          run it; its exit code must be CODE
//	start NAME REGEXP PROGRAM [ARG…]   run it in the background until its stdout
//	                                   matches; named groups become variables
//	await FILE REGEXP                  wait until the file matches
//	fetch URL FILE                     save what an HTTP server answers
//	signal NAME SIGNAL                 send HUP, INT or TERM to a started program
//	[!] ignores NAME SIGNAL            a started program ignores a signal (Linux)
//	ended NAME CODE                    wait for a started program; its exit code must be CODE
//
// What a started program writes is in the files NAME.out and NAME.err.
package script

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is how long a script waits for what must happen soon.
const patience = time.Minute

// Main is the TestMain of a package with scripts: main is the program's.
func Main(m *testing.M, name string, main func()) {
	testscript.Main(m, map[string]func(){name: main})
}

// Run runs the scripts of the package that is tested.
func Run(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Values[started{}] = make(map[string]*exec.Cmd)
			e.Defer(func() { end(e.Values[started{}].(map[string]*exec.Cmd)) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "start": start, "await": await, "fetch": fetch, "signal": signal, "ignores": ignores, "ended": ended,
		},
	})
}

// started is the key of a script's background programs.
type started struct{}

func programs(ts *testscript.TestScript) map[string]*exec.Cmd {
	return ts.Value(started{}).(map[string]*exec.Cmd)
}

func end(all map[string]*exec.Cmd) {
	for _, cmd := range all {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

func need(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "exits CODE PROGRAM [ARG…]")
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "start NAME REGEXP PROGRAM [ARG…]")
	name := args[0]
	path, err := lookPath(ts, args[2])
	ts.Check(err)
	cmd := exec.Command(path, args[3:]...)
	cmd.Args[0] = args[2] // by which the test binary knows what to be
	cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{"PATH", "HOME", "TMPDIR"} {
		cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
	}
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer out.Close()
	stderr, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = out, stderr
	ts.Check(cmd.Start())
	programs(ts)[name] = cmd
	await(ts, false, []string{name + ".out", args[1]})
}

// lookPath finds a program on the script's PATH.
func lookPath(ts *testscript.TestScript, program string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "await FILE REGEXP")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	var text []byte
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(10 * time.Millisecond) {
		text, err = os.ReadFile(ts.MkAbs(args[0]))
		ts.Check(err)
		if m := re.FindSubmatch(text); m != nil {
			for i, group := range re.SubexpNames() {
				if group != "" {
					ts.Setenv(group, string(m[i]))
				}
			}
			return
		}
	}
	ts.Fatalf("no %q in %s: %s", args[1], args[0], text)
}

func fetch(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "fetch URL FILE")
	client := http.Client{Timeout: patience}
	answer, err := client.Get(args[0])
	ts.Check(err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM}

func signal(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "signal NAME SIGNAL")
	cmd, s := programs(ts)[args[0]], signals[args[1]]
	if cmd == nil || s == 0 {
		ts.Fatalf("no program %s or no signal %s", args[0], args[1])
	}
	ts.Check(cmd.Process.Signal(s))
}

func ignores(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, args, 2, "[!] ignores NAME SIGNAL")
	cmd, s := programs(ts)[args[0]], signals[args[1]]
	if cmd == nil || s == 0 {
		ts.Fatalf("no program %s or no signal %s", args[0], args[1])
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	ts.Check(err)
	var mask uint64
	_, line, _ := strings.Cut(string(status), "\nSigIgn:")
	_, err = fmt.Sscanf(line, "%x", &mask)
	ts.Check(err)
	if ignored := mask>>(s-1)&1 == 1; ignored == neg {
		ts.Fatalf("%s ignores %s: %v", args[0], args[1], ignored)
	}
}

func ended(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "ended NAME CODE")
	cmd := programs(ts)[args[0]]
	if cmd == nil {
		ts.Fatalf("no program %s", args[0])
	}
	delete(programs(ts), args[0])
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	cmd.Wait()
	if !late.Stop() {
		ts.Fatalf("%s did not end", args[0])
	}
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s ended with %v, want %s", args[0], cmd.ProcessState, args[1])
	}
}
