package child

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Echo is what the tests' children do.
type Echo struct{}

// Say returns what it is given.
func (Echo) Say(in string, out *string) error {
	os.Stdout.WriteString("noise between the answers\n")
	*out = in
	return nil
}

// Refuse fails.
func (Echo) Refuse(in string, _ *string) error { return errors.New(in) }

// Die ends the process.
func (Echo) Die(in string, _ *string) error {
	os.Stderr.WriteString(in)
	os.Exit(3)
	return nil
}

func TestMain(m *testing.M) {
	Main(Echo{})
	os.Exit(m.Run())
}

func TestAChildAnswersInAProcessOfItsOwn(t *testing.T) {
	c, err := Start("echo", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if c.PID() == os.Getpid() {
		t.Errorf("PID = %d, which is the parent's", c.PID())
	}
	for range 3 {
		var got string
		if err := c.Call("Echo.Say", "hello", &got); err != nil || got != "hello" {
			t.Fatalf("Say = %q, %v, want hello", got, err)
		}
	}
	if err := c.Call("Echo.Refuse", "not today", new(string)); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("Refuse: %v, want the child's error", err)
	}
	if err := c.Call("Echo.Die", "famous last words", new(string)); err == nil || !strings.Contains(err.Error(), "famous last words") {
		t.Errorf("Die: %v, want the child's last words", err)
	}
}
