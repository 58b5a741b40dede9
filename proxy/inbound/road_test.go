package inbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var standIn = netip.MustParseAddrPort("198.19.7.8:6881")

func TestTCPRoadComesFromThePeersOwnAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	road := TCP(func(c swarm.Client, h swarm.Hash) (netip.AddrPort, bool) {
		return netip.MustParseAddrPort(l.Addr().String()), c == "c" && h == hash
	})
	conn, err := road(t.Context(), "c", hash, standIn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	from := netip.MustParseAddrPort(got.RemoteAddr().String())
	if runtime.GOOS == "linux" && from.Addr().String() != "127.19.7.8" {
		t.Errorf("it comes from %v", from)
	}
	if _, err := road(t.Context(), "d", hash, standIn); err != ErrNoRoad {
		t.Errorf("another client: %v, want %v", err, ErrNoRoad)
	}
}

func TestTCPRoadKeepsAwayFromOtherServices(t *testing.T) {
	for _, port := range []uint16{0, 1, 22, 80, 1023} {
		road := TCP(func(swarm.Client, swarm.Hash) (netip.AddrPort, bool) {
			return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), true
		})
		if _, err := road(t.Context(), "c", hash, standIn); err != ErrNoRoad {
			t.Errorf("port %d: %v, want %v", port, err, ErrNoRoad)
		}
	}
}

func TestTCPRoadToAClosedPortIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	road := TCP(func(swarm.Client, swarm.Hash) (netip.AddrPort, bool) {
		return netip.MustParseAddrPort(l.Addr().String()), true
	})
	if _, err := road(t.Context(), "c", hash, standIn); err == nil || err == ErrNoRoad {
		t.Errorf("road = %v", err)
	}
}

// dialer is an Association.
type dialer func(ctx context.Context, from netip.AddrPort) (swarm.Conn, error)

func (d dialer) Dial(ctx context.Context, from netip.AddrPort) (swarm.Conn, error) {
	return d(ctx, from)
}

func TestUTPRoadGoesThroughTheAssociation(t *testing.T) {
	ours, _ := pipe(0)
	road := UTP(func(c swarm.Client) Dialer {
		if c != "c" {
			return nil
		}
		return dialer(func(ctx context.Context, from netip.AddrPort) (swarm.Conn, error) {
			if until, ok := ctx.Deadline(); !ok || time.Until(until) > utpTimeout || from != standIn {
				return nil, errors.New("a wrong call")
			}
			return ours, nil
		})
	})
	if conn, err := road(t.Context(), "c", hash, standIn); err != nil || conn != swarm.Conn(ours) {
		t.Errorf("road = %v, %v", conn, err)
	}
	if _, err := road(t.Context(), "d", hash, standIn); err != ErrNoRoad {
		t.Errorf("a client without one: %v, want %v", err, ErrNoRoad)
	}
}
