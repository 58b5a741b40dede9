// Package hosts makes machines for a test: network namespaces that are joined by
// one bridge and have any addresses that the test gives them. A program on one
// host reaches another host's addresses as on the internet, and has a loopback
// interface and ports of its own.
// Not here: the namespace around them, without which these addresses would be
// the machine's own (package integration/netns).
package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Net is a bridge with hosts. Its methods may be called from any goroutine.
type Net struct {
	ns     netns.NsHandle // holds the bridge and nothing else
	bridge netlink.Link

	mu    sync.Mutex
	hosts []*Host // guarded by mu
}

// Host is one machine: a network namespace with an interface eth0.
type Host struct {
	Name string
	Addr netip.Addr

	net  *Net
	port string // of the bridge
	ns   netns.NsHandle
}

// New makes a bridge, in a namespace of its own.
func New() (*Net, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("hosts: %w", err)
	}
	n := &Net{ns: ns}
	if n.bridge, err = addBridge(ns); err != nil {
		return nil, errors.Join(fmt.Errorf("hosts: add a bridge: %w", err), n.Close())
	}
	return n, nil
}

// Close removes the hosts and the bridge. Programs that still run on a host keep
// its namespace until they end.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.ns.Close())
	}
	n.hosts = nil
	return errors.Join(append(errs, n.ns.Close())...)
}

// Add adds a host. Every other host is one hop away from it, whatever their
// addresses, and it sends everything through eth0, from addr.
func (n *Net) Add(name string, addr netip.Addr) (*Host, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("hosts: %s: %w", name, err)
	}
	h := &Host{Name: name, Addr: addr, net: n, ns: ns}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, h)
	h.port = fmt.Sprint("port", len(n.hosts))
	if err := n.plug(h, h.port); err != nil {
		return nil, fmt.Errorf("hosts: connect %s: %w", name, err)
	}
	return h, nil
}

// newNamespace returns a network namespace with its loopback interface up. The
// handle alone keeps it.
func newNamespace() (ns netns.NsHandle, err error) {
	err = elsewhere(func() error {
		if ns, err = netns.New(); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return nil
	})
	if err != nil {
		return ns, err
	}
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return ns, err
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return ns, err
	}
	return ns, handle.LinkSetUp(lo)
}

func addBridge(ns netns.NsHandle) (netlink.Link, error) {
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
	if err := handle.LinkAdd(bridge); err != nil {
		return nil, err
	}
	return bridge, handle.LinkSetUp(bridge)
}

// plug gives h an interface whose other end is a port of the bridge.
func (n *Net) plug(h *Host, port string) error {
	outer, err := netlink.NewHandleAt(n.ns)
	if err != nil {
		return err
	}
	defer outer.Close()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}
	if err := outer.LinkAdd(pair); err != nil {
		return err
	}
	if err := errors.Join(outer.LinkSetMaster(pair, n.bridge), outer.LinkSetUp(pair)); err != nil {
		return err
	}
	inner, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return err
	}
	defer inner.Close()
	eth0, err := inner.LinkByName("eth0")
	if err != nil {
		return err
	}
	return errors.Join(inner.AddrAdd(eth0, h.address()), inner.LinkSetUp(eth0), inner.RouteAdd(h.route(eth0)))
}

func (h *Host) address() *netlink.Addr {
	bits := h.Addr.BitLen()
	return &netlink.Addr{IPNet: &net.IPNet{IP: h.Addr.AsSlice(), Mask: net.CIDRMask(bits, bits)}, Flags: unix.IFA_F_NODAD}
}

// route leads everything through eth0.
func (h *Host) route(eth0 netlink.Link) *netlink.Route {
	bits := h.Addr.BitLen()
	everything := &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
	return &netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: everything, Scope: netlink.SCOPE_LINK, Src: h.Addr.AsSlice()}
}

// Cut pulls h's cable at the far end: its interface stays up, and everything
// that h sends or would receive is lost.
func (h *Host) Cut() error {
	return h.cable(func(outer *netlink.Handle, port netlink.Link) error { return outer.LinkSetNoMaster(port) })
}

// Mend undoes Cut.
func (h *Host) Mend() error {
	return h.cable(func(outer *netlink.Handle, port netlink.Link) error { return outer.LinkSetMaster(port, h.net.bridge) })
}

func (h *Host) cable(do func(*netlink.Handle, netlink.Link) error) error {
	outer, err := netlink.NewHandleAt(h.net.ns)
	if err != nil {
		return err
	}
	defer outer.Close()
	port, err := outer.LinkByName(h.port)
	if err != nil {
		return err
	}
	return do(outer, port)
}

// Down switches h's interface off: h knows that it has no network.
func (h *Host) Down() error {
	return h.eth0(func(inner *netlink.Handle, eth0 netlink.Link) error { return inner.LinkSetDown(eth0) })
}

// Up undoes Down.
func (h *Host) Up() error {
	return h.eth0(func(inner *netlink.Handle, eth0 netlink.Link) error {
		return errors.Join(inner.LinkSetUp(eth0), inner.RouteReplace(h.route(eth0)))
	})
}

func (h *Host) eth0(do func(*netlink.Handle, netlink.Link) error) error {
	inner, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return err
	}
	defer inner.Close()
	eth0, err := inner.LinkByName("eth0")
	if err != nil {
		return err
	}
	return do(inner, eth0)
}

// Command returns a command that runs on h.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	at := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), h.ns)
	return exec.Command("nsenter", append([]string{at, "--", name}, args...)...)
}

// Dial connects from h.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = elsewhere(func() error {
		if err := netns.Set(h.ns); err != nil {
			return err
		}
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", h.Name, err)
	}
	return conn, nil
}

// Listen listens on h.
func (h *Host) Listen(address string) (ln net.Listener, err error) {
	err = elsewhere(func() error {
		if err := netns.Set(h.ns); err != nil {
			return err
		}
		ln, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	return ln, nil
}

// Move gives h another address in place of its own, as another network would.
func (h *Host) Move(addr netip.Addr) error {
	return h.eth0(func(inner *netlink.Handle, eth0 netlink.Link) error {
		old := h.address()
		h.Addr = addr
		return errors.Join(inner.AddrDel(eth0, old), inner.AddrAdd(eth0, h.address()), inner.RouteReplace(h.route(eth0)))
	})
}

// Mute has h receive everything and send nothing, as behind a firewall that
// drops.
func (h *Host) Mute() error {
	return h.eth0(func(inner *netlink.Handle, eth0 netlink.Link) error {
		hole := h.route(eth0)
		hole.LinkIndex, hole.Src, hole.Scope, hole.Type = 0, nil, netlink.SCOPE_UNIVERSE, unix.RTN_BLACKHOLE
		return errors.Join(inner.RouteDel(h.route(eth0)), inner.RouteAdd(hole))
	})
}

// HTTP returns a client that connects from h.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
}

// elsewhere calls f on a thread that ends with it, and with it the namespace
// that f has entered.
func elsewhere(f func() error) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		failed <- f()
	}()
	return <-failed
}
