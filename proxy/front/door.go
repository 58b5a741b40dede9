package front

import (
	"context"
	"net/netip"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// Door is how one client is reached: through its UDP association, or in its
// namespace. Its methods are called from many goroutines at once.
//
// A further kind of door, say a tracker's address on loopback for clients that
// use no proxy, is a package of its own. It implements Door, gives a client a
// name, and hands what the client does to the Client of that name: Connect for a
// connection to anywhere but a stand-in, Peer for one to a stand-in, and Packet
// for each packet that SortPacket does not call UTP.
type Door interface {
	// Dial opens a TCP connection to the client's own port, from a stand-in. A
	// door without a way of its own returns inbound.ErrNoRoad: the client is then
	// dialled at the address from which it announces.
	Dial(ctx context.Context, from netip.AddrPort, port uint16) (swarm.Conn, error)

	// DialUTP opens a µTP connection, from a stand-in. It waits until the client's
	// UDP address is known. A door without µTP returns inbound.ErrNoRoad.
	DialUTP(ctx context.Context, from netip.AddrPort) (swarm.Conn, error)

	// Send sends the client a packet. It never blocks, and keeps no reference.
	Send(p Packet)

	// Addr returns the client's UDP address, invalid as long as it is not known.
	Addr() netip.AddrPort

	// TakeBeacon returns, once, a stand-in of the sidecar's own that the client
	// is to be told of, so that it sends a packet and its UDP address is known.
	TakeBeacon() (netip.AddrPort, bool)
}

// Packet is a packet to a client.
type Packet struct {
	From, To netip.AddrPort
	Data     []byte
}
