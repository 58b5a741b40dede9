package front

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/peers"
)

func TestAPacketIsSortedByWhereItGoesAndHowItBegins(t *testing.T) {
	standIn := peers.Beacon(3)
	outside, name := netip.MustParseAddr("192.0.2.1"), netip.Addr{}
	syn := make([]byte, 20)
	syn[0] = 0x41
	query := []byte("d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:aa1:y1:qe")
	tracker := append(binary.BigEndian.AppendUint64(nil, 0x41727101980), 0, 0, 0, 0, 't', 'e', 's', 't')
	for _, c := range []struct {
		what   string
		to     netip.Addr
		packet []byte
		want   Kind
	}{
		{"µTP to a stand-in", standIn, syn, UTP},
		{"µTP to anywhere else", outside, syn, Refused},
		{"µTP to a name", name, syn, Refused},
		{"DHT to a node", outside, query, DHT},
		{"DHT to a stand-in, which is a node too", standIn, query, DHT},
		{"DHT to a name", name, query, Refused},
		{"a tracker's by address", outside, tracker, Tracker},
		{"a tracker's by name", name, tracker, Tracker},
		{"a tracker's to a stand-in", standIn, tracker, Refused},
		{"nothing", outside, nil, Refused},
		{"nothing to a stand-in", standIn, nil, Refused},
		{"something else", outside, []byte("hello"), Refused},
	} {
		if got := SortPacket(c.to, c.packet); got != c.want {
			t.Errorf("%s is %v, want %v", c.what, got, c.want)
		}
	}
}
