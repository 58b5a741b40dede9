package directory

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

func fileNetwork() Network {
	n := testNetwork(3)
	n.Entries = []EntryRelay{
		{idOfKey(1), netip.MustParseAddrPort("8.0.1.1:9001")},
		{idOfKey(2), netip.MustParseAddrPort("[2a00:1::2]:9001")},
	}
	return n
}

func TestNetworkFileRoundTrips(t *testing.T) {
	test := fileNetwork()
	test.Test, test.ViewEvery = true, 2*time.Second
	for _, n := range []Network{fileNetwork(), test, testNetwork(1)} {
		got, err := ParseNetwork(n.File())
		if err != nil || !reflect.DeepEqual(got, n) {
			t.Errorf("ParseNetwork = %+v, %v, want %+v", got, err, n)
		}
	}
}

func TestNetworkFileIsReadStrictly(t *testing.T) {
	n := fileNetwork()
	good := string(n.File())
	key, other := onion.ID(n.Trackers[0].Key).String(), onion.ID(n.Trackers[1].Key).String()
	for name, text := range map[string]string{
		"empty":              "",
		"no tracker":         "{}",
		"not closed":         good[:len(good)-3],
		"something after":    good + "{}",
		"unknown field":      strings.Replace(good, `"entries"`, `"entrys"`, 1),
		"short key":          strings.Replace(good, key, key[1:], 1),
		"key twice":          strings.Replace(good, other, key, 1),
		"tracker as entry":   strings.Replace(good, idOfKey(1).String(), key, 1),
		"a name":             strings.Replace(good, "9.0.0.0:9000", "tracker.example:9000", 1),
		"no port":            strings.Replace(good, "9.0.0.0:9000", "9.0.0.0", 1),
		"port zero":          strings.Replace(good, "9.0.0.0:9000", "9.0.0.0:0", 1),
		"unspecified":        strings.Replace(good, "9.0.0.0:9000", "0.0.0.0:1", 1),
		"every, not a test":  strings.Replace(good, "{", `{"view_every": "2s",`, 1),
		"every below zero":   strings.Replace(good, "{", `{"test": true, "view_every": "-2s",`, 1),
		"every not duration": strings.Replace(good, "{", `{"test": true, "view_every": "often",`, 1),
		"too long":           good + strings.Repeat(" ", MaxNetworkFile),
		"too many trackers":  `{"trackers": [` + strings.Repeat(`{"key":"`+key+`","addr":"1.1.1.1:1"},`, MaxTrackers) + `{"key":"` + key + `","addr":"1.1.1.1:1"}]}`,
	} {
		if _, err := ParseNetwork([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLoadNetworkSaysWhichFileIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "network.json")
	if _, err := LoadNetwork(file); err == nil || !strings.Contains(err.Error(), "network file") {
		t.Errorf("LoadNetwork of nothing = %v", err)
	}
	n := fileNetwork()
	if err := os.WriteFile(file, n.File(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadNetwork(file); err != nil || len(got.Trackers) != 3 {
		t.Errorf("LoadNetwork = %v", err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadNetwork(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("LoadNetwork of half a file = %v", err)
	}
}

func TestTrackerLinkRoundTrips(t *testing.T) {
	n := fileNetwork()
	for _, l := range []Link{{Tracker: n.Trackers[0]}, {n.Trackers[0], n.Entries[:1]}, {n.Trackers[0], n.Entries}} {
		got, err := ParseLink(l.String())
		if err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("ParseLink(%s) = %+v, %v", l, got, err)
		}
	}
}

func TestTrackerLinkIsReadStrictly(t *testing.T) {
	n := fileNetwork()
	good := Link{n.Trackers[0], n.Entries}.String()
	for name, link := range map[string]string{
		"empty":          "",
		"another scheme": strings.Replace(good, "shoal:", "http:", 1),
		"no key":         "shoal://9.0.0.0:9000",
		"a name":         strings.Replace(good, "9.0.0.0", "localhost", 1),
		"unknown part":   good + "&x=y",
		"empty part":     good + "&",
		"empty query":    strings.SplitN(good, "?", 2)[0] + "?",
		"entry twice":    good + "&entry=" + idOfKey(1).String() + "@8.0.1.1:9001",
		"a path":         strings.Replace(good, "?", "/?", 1),
		"too long":       good + strings.Repeat("&entry="+idOfKey(1).String()+"@8.0.1.1:9001", 200),
	} {
		if _, err := ParseLink(link); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLinksMakeANetwork(t *testing.T) {
	n := fileNetwork()
	got, err := FromLinks(Link{n.Trackers[0], n.Entries[:1]}, Link{n.Trackers[1], n.Entries}, Link{Tracker: n.Trackers[2]})
	if err != nil || !reflect.DeepEqual(got, n) {
		t.Errorf("FromLinks = %+v, %v, want %+v", got, err, n)
	}
	if _, err := FromLinks(); err == nil {
		t.Error("no link makes a network")
	}
	if _, err := FromLinks(Link{Tracker: n.Trackers[0]}, Link{Tracker: n.Trackers[0]}); err == nil {
		t.Error("one tracker counts twice")
	}
}

func TestFewTrackersAreTrustedAloud(t *testing.T) {
	for trackers, want := range map[int]bool{1: true, 2: true, 3: false, 4: false} {
		n := testNetwork(trackers)
		if got := n.Trusts() != ""; got != want {
			t.Errorf("%d trackers: says so %v, want %v", trackers, got, want)
		}
	}
}

func FuzzParseNetwork(f *testing.F) {
	n := fileNetwork()
	f.Add(n.File())
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNetwork(b)
		if err != nil {
			return
		}
		again, err := ParseNetwork(n.File())
		if err != nil || !bytes.Equal(again.File(), n.File()) {
			t.Errorf("File writes what ParseNetwork refuses: %v", err)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	n := fileNetwork()
	f.Add(Link{n.Trackers[0], n.Entries}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseLink(s); err == nil && l.String() != s {
			t.Errorf("ParseLink(%q) accepts another form of %q", s, l)
		}
	})
}
