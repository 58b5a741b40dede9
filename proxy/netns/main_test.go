package netns

import (
	"fmt"
	"io"
	"os"
	"testing"
)

// roleEnv makes this test binary play a command inside a namespace: its value
// names the role, the arguments are the role's.
const roleEnv = "SHOAL_TEST_ROLE"

var roles = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	Init()
	if name := os.Getenv(roleEnv); name != "" {
		if err := roles[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// as is the Config of a command that plays a role.
func as(t testing.TB, h Handler, role string, args ...string) Config {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Command: append([]string{exe}, args...),
		Env:     append(os.Environ(), roleEnv+"="+role),
		Stdin:   noInput,
		Stderr:  os.Stderr,
		Handler: h,
		Say:     func(line string) { t.Log("said: " + line) },
		noTUN:   os.Getenv("VETH") != "",
	}
}

var noInput, _ = os.Open(os.DevNull)

var _ io.Reader = noInput
