//go:build unix

package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary play a parent that is killed while it has a child.
func TestMain(m *testing.M) {
	if log := os.Getenv("PROCESS_TEST_PARENT"); log != "" {
		p, err := Start("sleeper", exec.Command("sleep", "60"), log)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.PID())
		<-p.Gone()
	}
	os.Exit(m.Run())
}

func TestStopReturnsWhenTheProcessIsGone(t *testing.T) {
	p, err := Start("sleeper", exec.Command("sleep", "60"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(p.PID(), 0); err != syscall.ESRCH {
		t.Errorf("signal 0 to the stopped process = %v, want %v", err, syscall.ESRCH)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestErrRepeatsTheLastWords(t *testing.T) {
	p, err := Start("talker", exec.Command("sh", "-c", "echo no such luck >&2; exit 3"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Err().Error(); !strings.Contains(got, "no such luck") || !strings.Contains(got, "exit status 3") {
		t.Errorf("Err() = %q, want the exit status and the last words", got)
	}
	if got := p.ExitCode(); got != 3 {
		t.Errorf("ExitCode() = %d, want 3", got)
	}
}

func TestStartSaysWhatCouldNotStart(t *testing.T) {
	_, err := Start("nobody", exec.Command("/nonexistent/program"), filepath.Join(t.TempDir(), "log"))
	if err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("Start of nothing = %v, want an error that names it", err)
	}
}

// running tells a live process from none and from one that nobody has waited for.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}
