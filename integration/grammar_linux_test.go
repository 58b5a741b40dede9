package integration

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// grammar is what a program takes, by its own help: the words that may follow,
// and the flags.
type grammar struct {
	name  string
	words map[string]*grammar
	flags map[string]bool // by name; true: a value follows
}

var (
	helpFlag = regexp.MustCompile(`^\s+((?:--?[\w-]+)(?:, --?[\w-]+)*)( [^\s]+)?(?:\s|$)`)
	helpWord = regexp.MustCompile(`^\s+([a-z][\w-]*)((?:, [\w-]+)*)(?:\s|$)`)
	section  = regexp.MustCompile(`^([A-Z][A-Z ]*):$`)
)

// readGrammar asks a program, and each of its commands, for help.
func readGrammar(t *testing.T, ctx context.Context, program string, words ...string) *grammar {
	t.Helper()
	got := command(t, ctx, program, append(words, "--help")...)
	if got.code != 0 {
		t.Fatalf("%s %s --help: %+v", filepath.Base(program), strings.Join(words, " "), got)
	}
	g := &grammar{strings.Join(append([]string{filepath.Base(program)}, words...), " "), make(map[string]*grammar), make(map[string]bool)}
	in := ""
	for lines := bufio.NewScanner(strings.NewReader(got.out)); lines.Scan(); {
		line := lines.Text()
		switch m := section.FindStringSubmatch(line); {
		case m != nil:
			in = m[1]
		case strings.HasSuffix(in, "OPTIONS"):
			if m := helpFlag.FindStringSubmatch(line); m != nil {
				for _, name := range strings.Split(m[1], ", ") {
					g.flags[name] = m[2] != ""
				}
			}
		case strings.HasSuffix(in, "COMMANDS"):
			if m := helpWord.FindStringSubmatch(line); m != nil && m[1] != "help" {
				g.words[m[1]] = readGrammar(t, ctx, program, append(words, m[1])...)
			}
		}
	}
	if len(g.flags) == 0 {
		t.Fatalf("%s names no flags in its help: %s", g.name, got.out)
	}
	return g
}

// check reports what in a command line its program does not take. Words that are
// neither a flag nor a command's name are taken for arguments.
func (g *grammar) check(args []string) error {
	if len(args) > 1 && args[0] == "help" { // about a command
		args = args[1:]
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, _, joined := strings.Cut(arg, "=")
		switch value, known := g.flags[name]; {
		case arg == "--":
			return nil
		case !strings.HasPrefix(arg, "-"):
			if next := g.words[arg]; next != nil {
				return next.check(args)
			}
			if len(g.words) > 0 && arg != "…" && arg != "help" {
				return g.any(arg, args)
			}
		case !known:
			return fmt.Errorf("%s has no flag %s", g.name, name)
		case value && !joined:
			if len(args) == 0 {
				return nil // named, not used
			}
			args = args[1:]
		}
	}
	return nil
}

// any reports whether word, in capitals, can stand for one of g's commands.
func (g *grammar) any(word string, args []string) error {
	for _, w := range g.words {
		if word == strings.ToUpper(word) && w.check(args) == nil {
			return nil
		}
	}
	return fmt.Errorf("%s has no command %q", g.name, strings.Join(append([]string{word}, args...), " "))
}

// takes reports whether g or a command of it has a flag.
func (g *grammar) takes(flag string) bool {
	_, ok := g.flags[flag]
	for _, w := range g.words {
		ok = ok || w.takes(flag)
	}
	return ok
}
