package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/manual"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// placeholders are the words in commands that a reader replaces.
var placeholders = map[string]func(*reader) string{
	"IP": func(r *reader) string { return r.host.Addr.String() },
}

// notTyped are commands that this test can't run, and why. Those of make are
// looked through by make itself.
var notTyped = map[string]string{
	"make test": "this test is a part of it",
}

// TestEveryCommandOfThePagesWorks types every block of commands as it stands, in
// the order of its page, on a machine of its own beside a network that is no
// test, and compares what comes with what the page says will.
func TestEveryCommandOfThePagesWorks(t *testing.T) {
	ctx := deadline(t)
	var w *walk
	used := make(map[string]bool)
	for _, p := range pages(t) {
		commands, pictures := p.Typed()
		for _, b := range pictures {
			if word, _, _ := strings.Cut(strings.TrimSpace(b.Text), " "); looksTyped(word) {
				t.Errorf("%s:%d: a block that is not fenced as sh begins with a command: %s", p.Name, b.Line, b.Text)
			}
			t.Logf("%s:%d: a picture", p.Name, b.Line)
		}
		files(t, p)
		if len(commands) == 0 {
			continue
		}
		if w == nil {
			w = newWalk(t, ctx, public)
		}
		t.Run(p.Name, func(t *testing.T) { typePage(t, ctx, w, p, commands, used) })
	}
	for line := range notTyped {
		if !used[line] {
			t.Errorf("notTyped has %q, which no page says", line)
		}
	}
}

func looksTyped(word string) bool {
	return word == "$" || word == "make" || word == "go" || word == "sudo" || word == "docker" || word == "curl" || word == "systemctl" ||
		strings.HasPrefix(word, "shoal") || strings.HasPrefix(word, "bin/")
}

// files checks the files that a page shows.
func files(t *testing.T, p *manual.Page) {
	t.Helper()
	for _, b := range p.Blocks {
		switch {
		case b.Commands(), b.Info == "", b.Info == "text":
		case b.Info == "json":
			text := strings.NewReplacer("KEY", strings.Repeat("A", 42)+"E", "ID", strings.Repeat("B", 42)+"E").Replace(b.Text)
			if _, err := directory.ParseNetwork([]byte(text)); err != nil {
				t.Errorf("%s:%d: no network file: %v", p.Name, b.Line, err)
			}
		default:
			t.Errorf("%s:%d: the test does not know what to do with a block of %s", p.Name, b.Line, b.Info)
		}
	}
}

// typePage has a reader type what a page says.
func typePage(t *testing.T, ctx context.Context, w *walk, p *manual.Page, commands []manual.Command, used map[string]bool) {
	r := w.joins(t)
	if p.Name == "README.md" { // which says how to build them
		if err := os.RemoveAll(filepath.Join(r.dir, "shoal", "bin")); err != nil {
			t.Fatal(err)
		}
	}
	up := make(map[string]*typed)
	for _, c := range commands {
		fail := func(want, got any) {
			t.Helper()
			t.Errorf("%s:%d: %s\nwant: %v\ngot:  %v", p.Name, c.Line, c.Text, want, got)
		}
		if why := notTyped[c.Text]; why != "" {
			used[c.Text] = true
			t.Logf("%s:%d: %s: not typed: %s", p.Name, c.Line, c.Text, why)
			if target, ok := strings.CutPrefix(c.Text, "make "); ok {
				if err := dryMake(strings.Fields(target)...); err != nil {
					fail("a target that make knows", err)
				}
			}
			continue
		}
		line, err := w.fill(ctx, c.Text, r)
		if err != nil {
			fail("words that the test can replace", err)
			continue
		}
		kind := strings.Join(strings.Fields(line)[:min(2, len(strings.Fields(line)))], " ")
		if other := up[kind]; other != nil { // it has the same ports
			if err := r.stops(other); err != nil {
				t.Error(err)
			}
		}
		began := time.Now()
		typed, err := r.types(line)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.comesUp(ctx, typed); err != nil {
			fail("exit code 0, or a server that works", fmt.Sprintf("%v\n%s", err, typed.output()))
			r.kills(typed)
			continue
		}
		if c.Want != "" && !shows(c.Want, typed.output()) {
			fail(c.Want, typed.output())
		}
		t.Logf("%s:%d: %s: %v", p.Name, c.Line, c.Text, time.Since(began).Round(10*time.Millisecond))
		select {
		case <-typed.process.Gone():
		default:
			up[kind] = typed
		}
	}
	for _, c := range up {
		select {
		case <-c.process.Gone():
			t.Errorf("%s: it has ended by itself: %s", c.line, c.output())
		default:
		}
	}
	if err := r.leaves(); err != nil {
		t.Error(err)
	}
}

var capitals = regexp.MustCompile(`\$?\b[A-Z]{2,}(?:-[A-Z]+)*\b=?`)

// fill replaces the words in capitals of a command by what r would put there.
func fill(line string, r *reader) (string, error) {
	var err error
	line = capitals.ReplaceAllStringFunc(line, func(word string) string {
		if strings.HasPrefix(word, "$") || strings.HasSuffix(word, "=") {
			return word
		}
		put := placeholders[word]
		if put == nil {
			err = fmt.Errorf("what is %s? see placeholders", word)
			return word
		}
		return put(r)
	})
	return line, err
}

// varying are the parts of what a page shows that are others each time.
var varying = regexp.MustCompile(strings.Join([]string{
	`\b\d+(\.\d+)? (ms|s|min)\b`, `\b\d+\.\d+ [kMG]B\b`, `\b\d+ connections\b`, `\brelays( \d+)+`, `\b[\w-]{43}\b`,
}, "|"))

// shows reports whether an output has the lines that a page shows, in that order
// and perhaps with others between them.
func shows(want, got string) bool {
	next := ""
	for line := range strings.Lines(got) {
		for next == "" {
			if want == "" {
				return true
			}
			next, want, _ = strings.Cut(want, "\n")
			next = plain(next)
		}
		if plain(line) == next {
			next = ""
		}
	}
	return next == "" && strings.TrimSpace(want) == ""
}

// plain returns a line without what is another each time, and without spaces
// that only keep columns.
func plain(line string) string {
	return strings.Join(strings.Fields(varying.ReplaceAllString(line, "…")), " ")
}
