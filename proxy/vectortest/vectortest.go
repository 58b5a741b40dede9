// Package vectortest reads the test vectors of packages that parse packets.
package vectortest

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// Lines returns the lines of a file: kind, bytes, outcome. On a line they are
// "KIND HEX … -> OUTCOME"; empty lines and those that begin with # are none.
func Lines(t testing.TB, name string) (lines [][3]string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		left, want, _ := strings.Cut(line, " ->")
		kind, digits, _ := strings.Cut(left, " ")
		raw, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		lines = append(lines, [3]string{kind, string(raw), strings.TrimSpace(want)})
	}
	return lines
}
