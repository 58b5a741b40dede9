package meter

import (
	"os"
	"testing"
	"time"
)

func TestThisProcessUsesTimeAndMemory(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// Bounded by the clock: a processor that is not ours for ten seconds fails the test.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if after, err := CPU(os.Getpid()); err == nil && after > before {
			break
		}
	}
	after, err := CPU(os.Getpid(), os.Getpid())
	if err != nil || after <= 2*before {
		t.Errorf("CPU twice = %v, %v, want more than twice %v", after, err, before)
	}
	if n, err := Resident(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("Resident = %d, %v, want a megabyte or more", n, err)
	}
}
