package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/integration/manual"
)

// root is the project's folder, as the tests see it.
const root = ".."

func pages(t *testing.T) []*manual.Page {
	t.Helper()
	all, err := manual.Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// vocabulary is what the pages may name.
type vocabulary struct {
	programs  map[string]*grammar
	functions map[string]bool // tests, benchmarks and fuzz targets, as package folder and name
}

var (
	testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
	testName     = regexp.MustCompile(`^(?:Test|Benchmark|Fuzz)[A-Z]\w+$`)
	folder       = regexp.MustCompile(`^(?:cmd|circuit|relay|tracker|proxy|integration|docs)/[\w./-]*$`)
)

// TestWhatThePagesNameExists: commands and their flags, make's targets, tests,
// files and folders, wherever a page has them in its text as code, and its links.
func TestWhatThePagesNameExists(t *testing.T) {
	ctx := deadline(t)
	known := vocabulary{
		programs:  map[string]*grammar{"shoal": readGrammar(t, ctx, shoal()), "shoal-tracker": readGrammar(t, ctx, shoalTracker())},
		functions: testFunctions(t),
	}
	checked := 0
	for _, p := range pages(t) {
		for _, s := range p.Spans {
			is, err := known.check(s.Text)
			if is {
				checked++
			}
			if err != nil {
				t.Errorf("%s:%d: `%s`: %v", p.Name, s.Line, s.Text, err)
			}
		}
		commands, _ := p.Typed()
		for _, c := range commands {
			if _, err := known.check(strings.ReplaceAll(c.Text, "\\\n", "")); err != nil {
				t.Errorf("%s:%d: %s: %v", p.Name, c.Line, c.Text, err)
			}
		}
		for _, l := range p.Links {
			if _, err := os.Stat(filepath.Join(root, l.Text)); err != nil {
				t.Errorf("%s:%d: a link to %s: %v", p.Name, l.Line, l.Text, err)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d names in the pages' text were understood", checked)
	}
	for _, wrong := range []string{"shoal swim", "bin/shoal proxy --unheard-of", "shoal-tracker --publish 1", "--unheard-of", "make nothing",
		"make bench BENCH=nothing", "TestNothing", "circuit/none.go", "go test -bench Nothing ./circuit/link", "go test ./circuit/none"} {
		if is, err := known.check(wrong); !is || err == nil {
			t.Errorf("nothing is wrong with `%s`", wrong)
		}
	}
}

// check reports whether it knows what kind of thing a piece of code names, and
// then what is wrong with it.
func (v *vocabulary) check(code string) (is bool, err error) {
	words := strings.Fields(code)
	if len(words) == 0 {
		return false, nil
	}
	first := strings.TrimPrefix(words[0], "bin/")
	switch program := v.programs[first]; {
	case program != nil:
		return true, program.check(words[1:])
	case strings.HasPrefix(first, "--"):
		return true, v.flag(first)
	case first == "make" && len(words) > 1:
		return true, dryMake(words[1:]...)
	case first == "go" && len(words) > 1 && words[1] == "test":
		return true, v.goTest(words[2:])
	case testName.MatchString(code):
		for f := range v.functions {
			if filepath.Base(f) == code {
				return true, nil
			}
		}
		return true, fmt.Errorf("there is no such test")
	case folder.MatchString(code):
		_, err := os.Stat(filepath.Join(root, code))
		return true, err
	}
	return false, nil
}

// flag checks that a command of ours has a flag, or the client that it is known to be of.
func (v *vocabulary) flag(word string) error {
	name, _, _ := strings.Cut(word, "=")
	for _, p := range v.programs {
		if p.takes(name) {
			return nil
		}
	}
	help := clientFlags[name]
	if help == nil {
		return errors.New("no command has the flag")
	}
	out, err := exec.Command(help[0], help[1:]...).Output()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(help, " "), err)
	}
	if !strings.Contains(string(out), name) {
		return fmt.Errorf("%s does not have the flag", help[0])
	}
	return nil
}

// clientFlags are flags of torrent clients that the pages name, and what prints
// those that there are.
var clientFlags = map[string][]string{
	"--dht-entry-point": {"aria2c", "--help=#all"},
}

// dryMake has make print what it would do.
func dryMake(args ...string) error {
	for _, a := range args {
		if suites, ok := strings.CutPrefix(a, "BENCH="); ok && suites != "NAME" {
			if err := benchSuites(strings.Split(suites, ",")); err != nil {
				return err
			}
		}
	}
	cmd := exec.Command("make", append([]string{"-C", root, "-n"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make -n: %w: %s", err, out)
	}
	return nil
}

// benchSuites checks that the benchmark knows these.
func benchSuites(names []string) error {
	text, err := os.ReadFile(filepath.Join(root, "integration/bench/main.go"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.Contains(string(text), fmt.Sprintf("\t%q: {", name)) && !strings.Contains(string(text), fmt.Sprintf("\t{%q, ", name)) {
			return fmt.Errorf("there is no benchmark %q", name)
		}
	}
	return nil
}

// goTest checks that the tests which `go test` would run are there.
func (v *vocabulary) goTest(args []string) error {
	pattern, dir := "", ""
	kinds := map[string]string{"-run": "Test", "-bench": "Benchmark", "-fuzz": "Fuzz"}
	for i, a := range args {
		switch {
		case kinds[a] != "" && i+1 < len(args):
			pattern = "^" + kinds[a] + ".*" + args[i+1]
		case strings.HasPrefix(a, "./"):
			dir = filepath.Clean(a)
		}
	}
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	for f := range v.functions {
		if filepath.Dir(f) == dir && wanted.MatchString(filepath.Base(f)) {
			return nil
		}
	}
	return fmt.Errorf("no test in %q has a name like %q", dir, pattern)
}

func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		for _, m := range testFunction.FindAllStringSubmatch(string(text), -1) {
			all[filepath.Join(dir, m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestEveryDecisionHasADate, behind a heading that others can link to.
func TestEveryDecisionHasADate(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/decisions.md"))
	if err != nil {
		t.Fatal(err)
	}
	dated := regexp.MustCompile(`(?m)^### .+\n\n\*\d{4}-\d\d-\d\d\.\* \S`)
	headings := regexp.MustCompile(`(?m)^### .+`)
	if got, want := len(dated.FindAll(text, -1)), len(headings.FindAll(text, -1)); got != want || want == 0 {
		t.Errorf("%d of %d decisions have a date", got, want)
	}
	for _, line := range regexp.MustCompile(`(?m)^\*\*.{0,60}`).FindAll(text, -1) {
		t.Errorf("a decision without a heading: %s", line)
	}
}
