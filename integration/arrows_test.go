package integration

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/shoal-p2p/shoal/"

// floors are the rooms of the house from top to bottom: an import points to the
// same floor or further down, never up. A name covers the packages below it
// that have no floor of their own.
var floors = [][]string{
	{"cmd"},
	{"integration"},
	{"proxy"},
	{"proxy/doctor"},
	{"proxy/setup"},
	{"proxy/setup/deluge"},
	{"proxy/setup/rencode"},
	{"proxy/socks", "proxy/confined"},
	{"proxy/front"},
	{"proxy/inbound"},
	{"proxy/utp", "proxy/scrub"},
	{"proxy/announce", "proxy/dht", "proxy/peers", "proxy/memory"},
	{"proxy/swarm"},
	{"proxy/authority", "proxy/netns", "proxy/status", "proxy/mse", "proxy/uplink", "proxy/vectortest"},
	{"proxy/proc"},
	{"relay"},
	{"tracker"},
	{"tracker/announce", "tracker/swarm", "tracker/directory"},
	{"circuit"},
	{"circuit/hop"},
	{"circuit/stream"},
	{"circuit/path"},
	{"circuit/link"},
	{"circuit/window"},
	{"circuit/onion"},
	{"circuit/cell", "circuit/state", "circuit/fault", "circuit/seldom"},
}

// aloof is what a room leaves alone, whatever its floor.
var aloof = map[string][]string{
	"circuit/cell":  {"net", "os", "time", "crypto"},
	"circuit/onion": {"net", "os"},
	"circuit/path":  {"net/http", "os/exec"},
	"proxy/socks":   {"github.com/shoal-p2p/shoal/circuit"},
	"proxy/utp":     {"github.com/shoal-p2p/shoal/circuit"},
	"proxy/dht":     {"github.com/shoal-p2p/shoal/circuit"},
	"proxy/inbound": {"github.com/shoal-p2p/shoal/circuit"},
	"proxy/peers":   {"github.com/shoal-p2p/shoal/circuit"},
	"proxy/status":  {"github.com/shoal-p2p/shoal/circuit"},
}

// floor returns which floor a package is on, by the longest name that covers it.
func floor(pkg string) (n int, ok bool) {
	longest := -1
	for i, names := range floors {
		for _, name := range names {
			if within(pkg, name) && len(name) > longest {
				n, longest = i, len(name)
			}
		}
	}
	return n, longest >= 0
}

func within(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

func TestImportsPointDown(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		seen++
		pkg := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(file), ".."+string(filepath.Separator)))
		from, ok := floor(pkg)
		if !ok {
			t.Errorf("%s: package %s has no floor: give it one in floors", file, pkg)
			return nil
		}
		if top, _ := floor("proxy"); from == top && pkg != "proxy" {
			t.Errorf("%s: package %s is no part of the sidecar's wiring: give it a floor of its own", file, pkg)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			stranger := func(room string) bool { return within(path, room) && path != module+"circuit/state" }
			if slices.ContainsFunc(aloof[pkg], stranger) {
				t.Errorf("%s: package %s leaves %s alone", file, pkg, path)
			}
			own, ok := strings.CutPrefix(path, module)
			if !ok {
				continue
			}
			if to, ok := floor(own); !ok || to < from {
				t.Errorf("%s: package %s imports %s, which is further up", file, pkg, own)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("only %d files were seen", seen)
	}
}
