package version

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMakeBuildStampsTheCommit, in a checkout, in another one of the same
// commit and in an archive without git: all three make the same programs.
func TestMakeBuildStampsTheCommit(t *testing.T) {
	first := filepath.Join(t.TempDir(), "first")
	checkout(t, first)
	second := filepath.Join(t.TempDir(), "second")
	command(t, ".", "git", "clone", "-q", first, second)
	archive := filepath.Join(t.TempDir(), "archive")
	unpack(t, archive, command(t, first, "git", "archive", "HEAD"))

	hash := strings.TrimSpace(string(command(t, first, "git", "rev-parse", "HEAD")))
	want := "shoal " + Number + ", commit " + hash[:commitLength] + " of 2026-12-02\n"
	var programs [][]byte
	for _, dir := range []string{first, second, archive} {
		got, program := build(t, dir)
		if got != want {
			t.Errorf("%s: %q, want %q", filepath.Base(dir), got, want)
		}
		programs = append(programs, program)
	}
	if !bytes.Equal(programs[0], programs[1]) || !bytes.Equal(programs[0], programs[2]) {
		t.Error("the programs differ")
	}

	write(t, filepath.Join(second, "LICENSE"), "changed")
	if got, _ := build(t, second); !strings.Contains(got, hash[:commitLength]+"+changes of") {
		t.Errorf("with a changed file: %q", got)
	}
	write(t, filepath.Join(archive, ".commit"), unfilled) // from no archive of git's
	if got, _ := build(t, archive); got != "shoal "+Number+", commit unknown\n" {
		t.Errorf("with neither git nor an archive: %q", got)
	}
}

// unfilled is .commit as it is in the repository.
const unfilled = "$Format:%H %ct$\n"

// checkout makes a repository with this one's Makefile and version, and two
// small programs.
func checkout(t *testing.T, dir string) {
	const root = "../../.."
	for _, file := range []string{"Makefile", ".gitattributes", "cmd/internal/version/version.go"} {
		b, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, file), string(b))
	}
	write(t, filepath.Join(dir, ".commit"), unfilled) // this one is filled in if git archived it
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "go.mod"), "module github.com/shoal-p2p/shoal\n"+string(regexp.MustCompile(`(?m)^go .*\n`).Find(mod)))
	write(t, filepath.Join(dir, "LICENSE"), "MIT\n")
	for _, name := range []string{"shoal", "shoal-tracker"} {
		write(t, filepath.Join(dir, "cmd", name, "main.go"), `package main

import (
	"fmt"

	"github.com/shoal-p2p/shoal/cmd/internal/version"
)

func main() { fmt.Println("`+name+`", version.Full()) }
`)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "-m", "cmd: a version"}} {
		command(t, dir, "git", args...)
	}
}

// build runs make build in dir, and returns what the program prints, and the program.
func build(t *testing.T, dir string) (version string, program []byte) {
	command(t, dir, "make", "build")
	program, err := os.ReadFile(filepath.Join(dir, "bin", "shoal"))
	if err != nil {
		t.Fatal(err)
	}
	return string(command(t, dir, filepath.Join(dir, "bin", "shoal"))), program
}

// command returns what a command prints.
func command(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	// As without a hook or make above this test.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") || strings.HasPrefix(v, "MAKE") })
	cmd.Env = append(cmd.Env, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_COMMITTER_DATE=2026-12-01T23:30:00-0200")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %v: %s", cmd, err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// unpack writes the files of a tar archive.
func unpack(t *testing.T, dir string, archive []byte) {
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			write(t, filepath.Join(dir, h.Name), string(b))
		}
	}
}
