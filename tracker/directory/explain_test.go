package directory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNetworkFileIsRefusedInPlainWords(t *testing.T) {
	n := fileNetwork()
	good := string(n.File())
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "not a network file: it is empty"},
		{"blank", " \n", "not a network file: it is empty"},
		{"torrent", "d8:announce3:abce", "it is a .torrent: open it in the torrent client"},
		{"large torrent", "d8:announce" + strings.Repeat("x", MaxNetworkFile), "it is a .torrent"},
		{"magnet", "magnet:?xt=urn:btih:abc", "it holds a magnet link"},
		{"link", Link{Tracker: n.Trackers[0]}.String(), "it holds a tracker link: specify that with --tracker"},
		{"page", "<!doctype html>", "it is HTML or XML"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "it is UTF-16 text: save it as UTF-8"},
		{"binary", "\x7fELF\x02\x01\x01\x00", "it is binary"},
		{"binary without zeros", "\x89PNG\xff\xfe\xfd", "it is binary"},
		{"large text", "{}" + strings.Repeat("é", MaxNetworkFile), "longer than"},
		{"cut off", good[:len(good)-3], "it ends too early, at line"},
		{"a comma too many", "{\n  \"trackers\": [],\n}", "not valid JSON: unexpected '}' at line 3, column 1"},
		{"no JSON", "trackers: x", "not valid JSON: unexpected 'a' at line 1, column 3"},
		{"unknown setting", `{"entrys": []}`, `unknown setting "entrys"`},
		{"wrong kind", `{"trackers": "x"}`, `setting "trackers" at line 1, column 17: want an array, found string`},
		{"wrong kind within", `{"trackers": [{"key": 7}]}`, `setting "trackers.key"`},
		{"a list", `[]`, "want an object, found array"},
		{"short key", strings.Replace(good, `"key": "`, `"key": "!`, 1), "is not an identity: want 43 characters"},
	} {
		_, err := ParseNetwork([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: ParseNetwork = %v, want %q in it", c.name, err, c.want)
			continue
		}
		for _, word := range []string{"json:", "invalid character", "looking for", "Go "} {
			if strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v: %q are Go's words", c.name, err, word)
			}
		}
	}
}

func TestNetworkFileMayBeginWithAByteOrderMark(t *testing.T) {
	n := fileNetwork()
	if _, err := ParseNetwork(append([]byte("\xef\xbb\xbf"), n.File()...)); err != nil {
		t.Error(err)
	}
}

func TestUnreadableNetworkFileIsRefusedInPlainWords(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "network.json")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		missing:                      "network file " + missing + ": no such file or directory",
		filepath.Join(dir, "folder"): "network file " + filepath.Join(dir, "folder") + ": is a directory",
	} {
		if _, err := LoadNetwork(file); err == nil || err.Error() != want {
			t.Errorf("LoadNetwork = %v, want %s", err, want)
		}
	}
}

func TestOtherLinksAreRefusedByName(t *testing.T) {
	for link, want := range map[string]string{
		"magnet:?xt=urn:btih:abc":          "magnet link",
		"https://tracker.example/announce": "ordinary BitTorrent tracker",
		"udp://tracker.example:6969":       "ordinary BitTorrent tracker",
		"network.json":                     `want shoal1…, not "network.json"`,
		"shoal://KEY@192.0.2.1:9000":       `want shoal1…, not "shoal://`,
		"":                                 "incomplete",
	} {
		if _, err := ParseLink(link); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseLink(%q) = %v, want %q in it", link, err, want)
		}
	}
}
