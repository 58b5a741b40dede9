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

// privateNetwork lives in a LAN and in a VPN.
func privateNetwork() Network {
	return Network{
		Trackers: []Tracker{{trackerKey(0), netip.MustParseAddrPort("192.168.1.2:9000")}, {trackerKey(1), netip.MustParseAddrPort("[fd00:1::2]:9000")}},
		Entries:  []EntryRelay{{idOfKey(1), netip.MustParseAddrPort("192.168.1.3:9001")}},
		Within:   prefixes("192.168.1.0/24", "fd00:1::/48"), ViewEvery: ViewEvery,
	}
}

func TestNetworkFileRoundTrips(t *testing.T) {
	test := fileNetwork()
	test.Test, test.ViewEvery = true, 2*time.Second
	for _, n := range []Network{fileNetwork(), test, testNetwork(1), privateNetwork()} {
		got, err := ParseNetwork(n.File())
		if err != nil || !reflect.DeepEqual(got, n) {
			t.Errorf("ParseNetwork = %+v, %v, want %+v", got, err, n)
		}
	}
}

func TestNetworkFileIsReadStrictly(t *testing.T) {
	n, lan := fileNetwork(), privateNetwork()
	good, private := string(n.File()), string(lan.File())
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
		"a private tracker":  strings.Replace(good, "9.0.0.0:9000", "192.168.1.2:9000", 1),
		"a private entry":    strings.Replace(good, "8.0.1.1:9001", "10.0.0.1:9001", 1),
		"tracker elsewhere":  strings.Replace(private, "192.168.1.2:9000", "192.168.2.2:9000", 1),
		"a public tracker":   strings.Replace(private, "192.168.1.2:9000", "9.0.0.0:9000", 1),
		"entry elsewhere":    strings.Replace(private, "192.168.1.3:9001", "9.0.0.1:9001", 1),
		"too wide":           strings.Replace(private, "192.168.1.0/24", "192.0.0.0/8", 1),
		"a public range":     strings.Replace(private, "192.168.1.0/24", "9.0.0.0/8", 1),
		"private and test":   strings.Replace(private, "{", `{"test": true,`, 1),
		"private and every":  strings.Replace(private, "{", `{"view_every": "2s",`, 1),
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

func TestAFileWithPrivateAddressesIsToldHowToBeAPrivateNetwork(t *testing.T) {
	n := privateNetwork()
	n.Within = nil
	const want = `192.168.1.2 is private and this network is public: that of a LAN or VPN says "within": ["192.168.0.0/16"], or a part of it`
	if _, err := ParseNetwork(n.File()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}
