//go:build !windows

package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFileKeepsItsModeAndItsLink(t *testing.T) {
	i := closed(t, QBittorrent, files(t)[QBittorrent])
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(i.File, link); err != nil {
		t.Fatal(err)
	}
	linked := Instance{Client: QBittorrent, File: link}
	state := filepath.Join(t.TempDir(), "a", "state")
	apply(t, linked, want, state)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	if info, err := os.Stat(i.File); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if !strings.Contains(content(t, i.File), "Proxy\\Type=SOCKS5\n") {
		t.Error("the file was not changed")
	}
	left, err := os.ReadDir(filepath.Dir(i.File))
	if err != nil || len(left) != 1 {
		t.Errorf("there is more than the file: %v, %v", left, err)
	}
	for _, of := range []struct {
		name string
		mode os.FileMode
	}{{state, 0o700}, {filepath.Join(state, "setup"), 0o700}, {store{state}.path(i), 0o600}} {
		if info, err := os.Stat(of.name); err != nil || info.Mode().Perm() != of.mode {
			t.Errorf("%s: %v, %v, want %v", of.name, info, err, of.mode)
		}
	}
	undo(t, i, state) // by its own name
}
