package manual

import (
	"reflect"
	"testing"
)

const page = "# Title\n" +
	"\n" +
	"A picture, which nothing prints:\n" +
	"\n" +
	"```\n" +
	" a ── b\n" +
	"```\n" +
	"\n" +
	"## Do this\n" +
	"\n" +
	"Say `make x`, or [more](running.md#there) at <http://h>,\n" +
	"  and this line goes on.\n" +
	"\n" +
	"    make demo\n" +
	"    bin/shoal run \\\n" +
	"        --now\n" +
	"\n" +
	"It prints\n" +
	"\n" +
	"```\n" +
	"0.4 s  done\n" +
	"```\n" +
	"\n" +
	"## Step by step\n" +
	"\n" +
	"1. On each machine, with `x`:\n" +
	"\n" +
	"       one --flag\n" +
	"\n" +
	"   and then:\n" +
	"\n" +
	"   ```console\n" +
	"   $ two\n" +
	"   out\n" +
	"   ```\n" +
	"2. Write the file:\n" +
	"\n" +
	"   ```json\n" +
	"   {\"a\": 1}\n" +
	"   ```\n" +
	"\n" +
	"```\n" +
	"what a section without commands draws\n" +
	"```\n"

func TestPagesAreReadAsTheirReadersDo(t *testing.T) {
	p := Parse("docs/page.md", page)
	commands, pictures := p.Typed()
	if want := []Command{
		{Line: 14, Text: "make demo"},
		{Line: 15, Text: "bin/shoal run \\\n    --now", Want: "0.4 s  done"},
		{Line: 28, Text: "one --flag"},
		{Line: 33, Text: "two", Want: "out\n"},
	}; !reflect.DeepEqual(commands, want) {
		t.Errorf("commands %+v\nwant     %+v", commands, want)
	}
	if want := []Span{{11, "make x"}, {26, "x"}}; !reflect.DeepEqual(p.Spans, want) {
		t.Errorf("spans %v, want %v", p.Spans, want)
	}
	if want := []Span{{11, "docs/running.md"}}; !reflect.DeepEqual(p.Links, want) {
		t.Errorf("links %v, want %v", p.Links, want)
	}
	if len(pictures) != 2 || pictures[0].Text != " a ── b" {
		t.Errorf("pictures %+v", pictures)
	}
	var leads []string
	for _, b := range p.Blocks {
		leads = append(leads, b.Heading+": "+b.Lead)
	}
	if want := []string{"Title: A picture, which nothing prints:", "Do this: Say `make x`, or [more](running.md#there) at <http://h>, and this line goes on.",
		"Do this: It prints", "Step by step: 1. On each machine, with `x`:", "Step by step: and then:",
		"Step by step: 2. Write the file:", "Step by step: 2. Write the file:"}; !reflect.DeepEqual(leads, want) {
		t.Errorf("leads %q\nwant  %q", leads, want)
	}
}
