package relay

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// moveEvery is the least time between two addresses that trackers see: a relay
// whose provider gives each connection another one must not have all trackers
// try it over and over.
const moveEvery = 10 * time.Minute

// place returns what a relay knows of its place at its start.
func place(cfg Config) hop.Place {
	return hop.Place{Advertise: cfg.Advertise, Own: ownAddrs(cfg), Trackers: len(cfg.Network.Trackers), Allowed: cfg.Network.CheckAddr}
}

func ownAddrs(cfg Config) []netip.Addr {
	var to []netip.AddrPort
	for _, t := range cfg.Network.Trackers {
		to = append(to, t.Addr)
	}
	return hop.OwnAddrs(cfg.Source, to...)
}

// saw takes where a tracker sees this relay, and decides anew.
func (r *Relay) saw(tracker onion.ID, at netip.Addr) {
	if !at.IsValid() {
		return
	}
	r.mu.Lock()
	r.seen[tracker] = at
	r.mu.Unlock()
	r.locate()
}

// look notices that this machine has another address: the trackers are asked at
// once what they see.
func (r *Relay) look() {
	own := ownAddrs(r.cfg)
	r.mu.Lock()
	other := len(own) > 0 && (len(r.place.Own) == 0 || own[0] != r.place.Own[0])
	r.place.Own = own
	if other {
		r.renewLocked()
	}
	r.mu.Unlock()
	r.locate() // also what had to wait
}

// renewLocked has all trackers told at once. Caller holds mu.
func (r *Relay) renewLocked() {
	close(r.renew)
	r.renew = make(chan struct{})
}

// locate decides where others reach this relay. When that is elsewhere than
// before, it says so and has the trackers told.
func (r *Relay) locate() {
	r.mu.Lock()
	p := r.place
	for _, a := range r.seen {
		p.Seen = append(p.Seen, a)
	}
	found, before := p.Find(), r.found
	moves := found.Addr != before.Addr && (before.Err != nil || time.Since(r.moved) >= moveEvery)
	switch {
	case moves:
		r.found, r.moved = found, time.Now()
	case found.Addr == before.Addr:
		r.found = found // for another reason, maybe
	}
	r.mu.Unlock()
	if !moves {
		return
	}
	if err := r.describe(); err != nil {
		r.cfg.Log.Error("the descriptor could not be signed", "err", err)
		return
	}
	r.sayWhere()
	r.mu.Lock()
	r.renewLocked()
	r.mu.Unlock()
}

// sayWhere logs where others reach this relay, and saves it for Name.
func (r *Relay) sayWhere() {
	found := r.Where()
	if found.Err != nil {
		r.cfg.Log.Warn("the address of this relay is not known yet: the trackers are asked where they see it", "for_now", found.Addr, "because", found.Err)
		return
	}
	attrs := []any{"address", found.Addr, "because", found.How}
	if nat := r.behindNAT(); nat != "" && !r.cfg.Advertise.Addr().IsValid() {
		attrs = append(attrs, "note", nat)
	}
	r.cfg.Log.Info("others reach this relay at this address", attrs...)
	if err := nameFile.Save(filepath.Join(r.cfg.State, "name"), []byte(hop.Name(r.ID(), found.Addr))); err != nil {
		r.cfg.Log.Warn("--print-id will not find the address", "err", err)
	}
}

// behindNAT says what to do when others reach this relay at an address that is
// none of this machine's, or "".
func (r *Relay) behindNAT() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, own := r.found.Addr, r.place.Own
	if len(own) == 0 || slices.Contains(own, at.Addr()) || at.Addr() == r.place.Listen.Addr() {
		return ""
	}
	return fmt.Sprintf("this machine has the address %v, so it is behind NAT: have the router forward TCP port %d to %v", own[0], at.Port(),
		netip.AddrPortFrom(own[0], r.place.Listen.Port()))
}

// noAddress says why no tracker can list this relay, and what to do.
func (r *Relay) noAddress() (why, do string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []string{"none is known"}
	if r.found.Err != nil {
		all[0] = r.found.Err.Error()
	}
	for _, a := range r.seen {
		if s := fmt.Sprintf("a tracker sees %v", a); a != r.found.Addr.Addr() && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	slices.Sort(all[1:])
	why = strings.Join(all, "; ")
	switch listen, ranges := r.place.Listen, r.cfg.Network.Ranges(); {
	case listen.Addr().IsLoopback():
		do = fmt.Sprintf("this relay listens on loopback: set --listen to 0.0.0.0:%d", listen.Port())
	case ranges != "":
		do = fmt.Sprintf("connect this machine to the network of %s, or set --advertise to its address there", ranges)
	default:
		do = fmt.Sprintf("this relay is behind NAT: have the router forward TCP port %d to this machine, and set --advertise to the router's public address", listen.Port())
	}
	return why, do
}

// nameFile holds ID@ADDR of a relay that runs, for those who ask beside it.
var nameFile = &state.Kind{Name: "relay-name", Version: 1, Limit: 256, Policy: state.Cache,
	What: "the relay's name", Lost: "--print-id takes this machine's address"}

// Name makes the keys in cfg.State, if there are none, and returns how network
// files call the relay. It may be called while the relay runs. The address is
// what cfg says, else the one that the relay last found, else the one that it
// would begin with.
func Name(cfg Config) (string, error) {
	id, err := hop.OpenID(cfg.State)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	if ip, err := netip.ParseAddr(host); !cfg.Advertise.Addr().IsValid() && (err != nil || ip.IsUnspecified()) {
		if e, ok := savedName(cfg.State); ok && e.ID == id {
			return hop.Name(e.ID, e.Addr), nil
		}
	}
	p, err := place(cfg).At(cfg.Listen)
	if err != nil {
		return "", err
	}
	return hop.Name(id, p.Find().Addr), nil
}

// savedName returns the name that a relay has saved in its state folder.
func savedName(dir string) (e directory.EntryRelay, ok bool) {
	ok, err := nameFile.Load(filepath.Join(dir, "name"), func(b []byte) (err error) {
		e, err = directory.ParseEntry(string(b))
		return err
	})
	return e, ok && err == nil
}
