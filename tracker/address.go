package tracker

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/shoal-p2p/shoal/circuit/hop"
)

// anywhere are addresses outside (RFC 5737, 3849): the way there is the default route.
var anywhere = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9"), netip.MustParseAddrPort("[2001:db8::1]:9")}

// place returns what a tracker knows of its place. There is nobody whom it
// could ask.
func place(cfg Config) hop.Place {
	to := slices.Clone(anywhere)
	for i, p := range cfg.Network.Within {
		to = slices.Insert(to, i, netip.AddrPortFrom(p.Addr().Next(), 9))
	}
	return hop.Place{Advertise: cfg.Advertise, Own: hop.OwnAddrs(cfg.Source, to...), Allowed: cfg.Network.CheckAddr}
}

// listen starts to listen and finds out where others reach the tracker. Where it
// can't tell, its operator must.
func listen(cfg Config) (net.Listener, hop.Found, error) {
	p := place(cfg)
	ln, at, err := hop.Listen(cfg.Listen)
	if err != nil {
		return nil, hop.Found{}, err
	}
	p.Listen = at
	found := p.Find()
	if found.Err == nil {
		return ln, found, nil
	}
	ln.Close()
	if at.Addr().IsLoopback() && !cfg.Advertise.Addr().IsValid() {
		return nil, found, fmt.Errorf("nobody could reach this tracker: it listens on loopback: set --listen to 0.0.0.0:%d", at.Port())
	}
	do := fmt.Sprintf("behind NAT, have the router forward TCP port %d to this machine and set --advertise to its public address; for a network of your LAN or VPN, set --within to its range, e.g. 192.168.0.0/16", found.Addr.Port())
	if len(cfg.Network.Within) > 0 {
		do = "connect this machine to that network, or set --advertise to its address there"
	}
	return nil, found, fmt.Errorf("nobody could reach this tracker: %w: %s", found.Err, do)
}

// Name makes the keys in cfg.State, if there are none, and returns how network
// files call the tracker. It may be called while the tracker runs, and before
// there is a network file.
func Name(cfg Config) (string, error) {
	id, err := hop.OpenID(cfg.State)
	if err != nil {
		return "", err
	}
	p, err := place(cfg).At(cfg.Listen)
	if err != nil {
		return "", err
	}
	return hop.Name(id, p.Find().Addr), nil
}
