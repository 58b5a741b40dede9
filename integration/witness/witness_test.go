package witness

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/integration/capture"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// network is one tracker, two relays, two sidecars.
var network = &testnet.Net{
	Trackers: []*testnet.Tracker{{Addr: "127.1.0.1:1"}},
	Relays:   []*testnet.Relay{{Addr: "127.2.1.1:1"}, {Addr: "127.2.2.1:1"}},
	Sidecars: []*testnet.Sidecar{{Source: netip.MustParseAddr("127.3.1.1")}, {Source: netip.MustParseAddr("127.3.2.1")}},
}

// record makes a trace of what was said from one address to another.
func record(said ...string) *capture.Trace {
	trace := &capture.Trace{Payload: make(map[capture.Flow][]byte)}
	for i := 0; i < len(said); i += 3 {
		f := capture.Flow{Protocol: capture.TCP, From: netip.MustParseAddrPort(said[i] + ":1000"), To: netip.MustParseAddrPort(said[i+1] + ":1")}
		trace.Payload[f] = append(trace.Payload[f], said[i+2]...)
	}
	return trace
}

func TestWhatIsAllowedIsNotWrong(t *testing.T) {
	secret, err := torrent.Noise("secret.bin", 1000)
	if err != nil {
		t.Fatal(err)
	}
	r := Look(record(
		"127.3.1.1", "127.2.1.1", "sealed",
		"127.2.1.1", "127.2.2.1", "sealed",
		"127.2.2.1", "127.1.0.1", "sealed",
		"127.3.2.1", "127.2.2.1", "sealed",
		"127.0.0.1", "127.0.0.1", string(secret.Data)+secret.Name, // a client and its sidecar
	), network, []torrent.Torrent{secret})
	if len(r.Wrong) > 0 {
		t.Errorf("wrong: %q", r.Wrong)
	}
	if both := r.SawBoth(0, 1); len(both) > 0 {
		t.Errorf("both sidecars were seen by %v", both)
	}
	if r.Links != 4 || r.Bytes != 24 {
		t.Errorf("%d links carried %d bytes, want 4 and 24", r.Links, r.Bytes)
	}
	if got := r.Numbers(r.Sidecars[1]); len(got) != 1 || got[0] != 2 {
		t.Errorf("sidecar 2 talked to relays %v, want 2 alone", got)
	}
}

func TestEachThingThatMustNotBeIsNoticed(t *testing.T) {
	secret, err := torrent.Noise("secret.bin", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		said []string
		want string
	}{
		"a sidecar dials a tracker":        {[]string{"127.3.1.1", "127.1.0.1", ""}, "sidecar 1 exchanged packets with a tracker"},
		"a sidecar dials a sidecar":        {[]string{"127.3.1.1", "127.3.2.1", ""}, "sidecar 1 exchanged packets with a sidecar"},
		"a relay dials a stranger":         {[]string{"127.2.1.1", "192.0.2.1", ""}, "relay 1 exchanged packets with 192.0.2.1"},
		"a piece of the file on a link":    {[]string{"127.2.1.1", "127.2.2.1", "xx" + string(secret.Data[500:520])}, "bytes of the file, at 2"},
		"the info-hash on a link":          {[]string{"127.2.1.1", "127.2.2.1", string(secret.Hash[:])}, "carried"},
		"the info-hash in hex on a link":   {[]string{"127.2.1.1", "127.2.2.1", secret.Hash.String()}, "carried"},
		"the file's name on a link":        {[]string{"127.3.1.1", "127.2.2.1", "secret.bin"}, `carried "secret.bin"`},
		"the tracker's name on a link":     {[]string{"127.3.1.1", "127.2.2.1", "t.invalid"}, `carried "t.invalid"`},
		"BitTorrent in clear on a link":    {[]string{"127.3.1.1", "127.2.2.1", "\x13BitTorrent protocol"}, "carried"},
		"a client that goes round sidecar": {[]string{"127.0.0.1", "127.2.2.1", ""}, "relay 2 exchanged packets with 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Look(record(tt.said...), network, []torrent.Torrent{secret}, "t.invalid")
			if got := strings.Join(r.Wrong, "; "); !strings.Contains(got, tt.want) {
				t.Errorf("wrong: %q, want %q", got, tt.want)
			}
		})
	}
}

func TestARelayThatSawBothIsNamed(t *testing.T) {
	r := Look(record("127.3.1.1", "127.2.1.1", "", "127.3.2.1", "127.2.1.1", ""), network, nil)
	if both := r.SawBoth(0, 1); len(both) != 1 || both[0].Name != "relay 1" {
		t.Errorf("both sidecars were seen by %v, want relay 1", both)
	}
}
