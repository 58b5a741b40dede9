// Package manual reads the project's pages, README.md and docs/*.md, as somebody
// does who types what they say: blocks of commands, files and pictures, and what
// stands in the text as code.
// Not here: running any of it (package integration's tests).
package manual

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Page is one file.
type Page struct {
	Name   string // from the project's folder, as docs/running.md
	Blocks []Block
	Spans  []Span // `code` within the text
	Links  []Span // files that [text](file) leads to, from the project's folder
}

// Span is a part of a page's text.
type Span struct {
	Line int // from 1
	Text string
}

// Block is an indented or fenced block.
type Block struct {
	Line    int    // of the first line within it, from 1
	Fenced  bool   // by ```, and not indented
	Info    string // behind the fence: the language
	Heading string // of its section
	Lead    string // the paragraph in front of it
	Text    string // without the indentation
}

// Command is what a page says to type in one go, with what it says will come.
type Command struct {
	Line int
	Text string
	Want string // the output in the page; "" for none
}

// Pages reads README.md and docs/*.md of the project in a folder.
func Pages(root string) ([]*Page, error) {
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	var all []*Page
	for _, file := range append([]string{filepath.Join(root, "README.md")}, names...) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return nil, err
		}
		all = append(all, Parse(filepath.ToSlash(name), string(text)))
	}
	return all, nil
}

// Commands reports whether b is there to be typed: it is indented, or its fence
// says sh or console.
func (b Block) Commands() bool {
	return !b.Fenced || b.Info == "sh" || b.Info == "console"
}

// Typed returns what a page says to type, in its order. A fence without a
// language behind commands, in the same section, shows what the last one prints;
// so do lines of a console block without a prompt. pictures are the fences
// without a language that show something else.
func (p *Page) Typed() (all []Command, pictures []Block) {
	section := ""
	for _, b := range p.Blocks {
		switch {
		case b.Commands():
			all = append(all, b.commands()...)
			section = b.Heading
		case !b.output():
		case section == b.Heading && all != nil && all[len(all)-1].Want == "":
			all[len(all)-1].Want = b.Text
		default:
			pictures = append(pictures, b)
		}
	}
	return all, pictures
}

func (b Block) output() bool { return b.Fenced && (b.Info == "" || b.Info == "text") }

// commands splits b: a line that ends with a backslash goes on in the next.
func (b Block) commands() (all []Command) {
	on := false
	for i, line := range strings.Split(b.Text, "\n") {
		typed, prompt := strings.CutPrefix(line, "$ ")
		switch {
		case on:
			all[len(all)-1].Text += "\n" + line
		case prompt, b.Info != "console" && strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#"):
			all = append(all, Command{Line: b.Line + i, Text: typed})
		case b.Info == "console" && all != nil:
			all[len(all)-1].Want += line + "\n"
		}
		on = (on || prompt || b.Info != "console") && strings.HasSuffix(line, `\`)
	}
	return all
}

var (
	heading = regexp.MustCompile(`^#+ +(.*)`)
	fence   = regexp.MustCompile("^( *)(```+|~~~+) *([^ `]*)$")
	item    = regexp.MustCompile(`^ *(?:[-*]|\d+\.) +`)
	code    = regexp.MustCompile("`([^`]+)`")
	link    = regexp.MustCompile(`\]\(([^):#]+)(?:#[^)]*)?\)`)
)

// reader is where in a page reading has come to.
type reader struct {
	page    *Page
	heading string
	lead    []string // the paragraph so far
	ended   bool     // by an empty line
	margin  int      // of the list that this is in
}

// Parse reads a page.
func Parse(name, text string) *Page {
	r := &reader{page: &Page{Name: name}, ended: true}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); {
		line := lines[i]
		switch m := fence.FindStringSubmatch(line); {
		case m != nil:
			i = r.fenced(lines, i, len(m[1]), m[2], m[3])
		case r.ended && indent(line) >= r.margin+4 && strings.TrimSpace(line) != "":
			i = r.indented(lines, i, r.margin+4)
		default:
			r.text(i+1, line)
			i++
		}
	}
	return r.page
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func (r *reader) add(b Block) {
	b.Heading, b.Lead = r.heading, strings.Join(r.lead, " ")
	b.Text = strings.TrimRight(b.Text, "\n")
	r.page.Blocks = append(r.page.Blocks, b)
}

// fenced reads the block whose fence is line i, and returns where it is over.
func (r *reader) fenced(lines []string, i, margin int, mark, info string) int {
	b := Block{Line: i + 2, Fenced: true, Info: info}
	for i++; i < len(lines) && strings.TrimSpace(lines[i]) != mark; i++ {
		b.Text += lines[i][min(margin, indent(lines[i])):] + "\n"
	}
	r.add(b)
	return i + 1
}

// indented reads the block that begins at line i, and returns where it is over.
func (r *reader) indented(lines []string, i, margin int) int {
	b := Block{Line: i + 1}
	for ; i < len(lines) && (indent(lines[i]) >= margin || strings.TrimSpace(lines[i]) == ""); i++ {
		b.Text += lines[i][min(margin, indent(lines[i])):] + "\n"
	}
	r.add(b)
	return i
}

func (r *reader) text(n int, line string) {
	if strings.TrimSpace(line) == "" {
		r.ended = true
		return
	}
	if m := heading.FindStringSubmatch(line); m != nil {
		r.heading, r.lead, r.margin, r.ended = m[1], nil, 0, true
		return
	}
	switch mark := item.FindString(line); {
	case mark != "":
		r.margin = len(mark)
		r.lead = nil
	case r.ended:
		if indent(line) < r.margin {
			r.margin = 0
		}
		r.lead = nil
	}
	r.ended = false
	r.lead = append(r.lead, strings.TrimSpace(line))
	for _, m := range code.FindAllStringSubmatch(line, -1) {
		r.page.Spans = append(r.page.Spans, Span{n, m[1]})
	}
	for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(line, ""), -1) {
		r.page.Links = append(r.page.Links, Span{n, filepath.ToSlash(filepath.Join(filepath.Dir(r.page.Name), m[1]))})
	}
}
