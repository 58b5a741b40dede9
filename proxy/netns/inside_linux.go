package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The names under which this executable is started again. They are no
// environment variables, which the command would inherit.
const (
	argInside  = Supervisor
	argCommand = "shoal-run-command"
)

const (
	controlFD = 3 // of inside

	txQueue = 1000 // packets
)

// Init must be the first call in main of a program that uses Run. In a process
// that Run started it does not return; in any other it does nothing.
func Init() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case argInside:
		// Capabilities and death signals belong to a thread.
		runtime.LockOSThread()
		inside(os.Args[1:])
	case argCommand:
		runtime.LockOSThread()
		become(os.Args[1:])
	}
}

// inside prepares the namespaces that it was started in, then supervises the
// command: args are its path and its arguments.
func inside(args []string) {
	ctl, err := openControl(os.NewFile(controlFD, "control"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "shoal: %v\n", err)
		os.Exit(ExitNotStarted)
	}
	s := &supervisor{ctl: ctl, command: args, asked: make(map[int]bool)}
	if err := s.prepare(); err != nil {
		denied := errors.Is(err, fs.ErrPermission)
		_ = ctl.send(message{Kind: kindFailed, Text: err.Error(), Denied: denied})
		os.Exit(ExitNotStarted)
	}
	s.run()
	os.Exit(0)
}

// prepare makes the interface and the mounts, and passes the interface to Run.
func (s *supervisor) prepare() error {
	m, fds, err := s.ctl.receive()
	closeAll(fds)
	if err != nil {
		return err
	}
	how := m.Setup
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	ready := message{Kind: kindReady, Road: roadTUN}
	fd := -1
	if !how.NoTUN {
		fd, err = makeTUN(how)
	}
	if fd < 0 {
		tunErr := err
		ready.Road = roadVeth
		if fd, ready.MAC, ready.Peer, err = makeVeth(how); err != nil {
			return errors.Join(err, tunErr)
		}
	}
	if s.own, err = privateMounts(how.Trust, s.command[0]); err != nil {
		return err
	}
	s.notify, err = s.own.notifySocket()
	if err != nil {
		ready.Text = "the service manager does not hear when the command is ready: " + err.Error()
	}
	return s.ctl.send(ready, append([]int{fd}, resolverSockets()...)...)
}

// makeTUN returns the file of a TUN that is the command's way out, or -1.
func makeTUN(how setup) (int, error) {
	tun := &netlink.Tuntap{
		LinkAttrs:  netlink.LinkAttrs{Name: how.Interface},
		Mode:       netlink.TUNTAP_MODE_TUN,
		Flags:      netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
		NonPersist: true,
		Queues:     1,
		Owner:      uint32(os.Getuid()),
		Group:      uint32(os.Getgid()),
	}
	if err := netlink.LinkAdd(tun); err != nil {
		return -1, fmt.Errorf("TUN: %w", err)
	}
	file := tun.Fds[0]
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("TUN: %w", err)
	}
	// The kernel may leave out checksums; an older one that can't is fine.
	_ = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	if err := wayOut(tun.Name, how.Addr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("TUN: %w", err)
	}
	return fd, nil
}

// makeVeth returns a packet socket at the far end of the command's way out.
// Neither end speaks ARP: the kernel addresses what it sends to the near end
// itself, so that to the far end, which has no IP address either, every packet
// is some other host's and only the packet socket takes it.
func makeVeth(how setup) (fd int, mac, peer []byte, err error) {
	fail := func(err error) (int, []byte, []byte, error) {
		return -1, nil, nil, fmt.Errorf("veth pair: %w", err)
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: how.Interface, MTU: linkMTU}, PeerName: peerName, PeerMTU: linkMTU}
	if err := netlink.LinkAdd(pair); err != nil {
		return fail(err)
	}
	near, err := netlink.LinkByName(how.Interface)
	if err != nil {
		return fail(err)
	}
	far, err := netlink.LinkByName(peerName)
	if err != nil {
		return fail(err)
	}
	for _, l := range []netlink.Link{near, far} {
		if err := netlink.LinkSetARPOff(l); err != nil {
			return fail(err)
		}
	}
	if err := quiet(far); err != nil {
		return fail(err)
	}
	if err := netlink.LinkSetUp(far); err != nil {
		return fail(err)
	}
	if err := wayOut(how.Interface, how.Addr); err != nil {
		return fail(err)
	}
	// Last: bound to an interface that is down it would begin with an error.
	if fd, err = packetSocket(far.Attrs().Index); err != nil {
		return fail(err)
	}
	return fd, far.Attrs().HardwareAddr, near.Attrs().HardwareAddr, nil
}

// packetSocket reads what arrives at the interface and sends from it.
func packetSocket(index int) (int, error) {
	// Protocol 0 until it is bound: nothing comes in from other interfaces.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	// Until the kernel gets round to giving the interface a queue, what goes
	// through the queue is lost; besides, it's quicker without.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	// A packet that finds the buffer full is lost, and one may be large.
	for _, opt := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, 8<<20)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: index}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	return fd, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// wayOut gives the interface the command's address and the route to everywhere.
func wayOut(name string, client netip.Addr) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := quiet(l); err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(l, linkMTU); err != nil {
		return err
	}
	if err := netlink.LinkSetTxQLen(l, txQueue); err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: netlink.NewIPNet(client.AsSlice())}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK}); err != nil {
		return err
	}
	// There is no neighbour to be found. A client that looks for one hears so at
	// once: Transmission stands still for as long as a router does not answer.
	_, multicast, _ := net.ParseCIDR("224.0.0.0/4")
	return netlink.RouteAdd(&netlink.Route{Dst: multicast, Type: unix.RTN_UNREACHABLE})
}

// quiet keeps IPv6 off the interface: nobody would answer, and a client that
// finds no IPv6 takes IPv4 at once. A kernel without IPv6 refuses, rightly.
func quiet(l netlink.Link) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err := netlink.LinkSetIP6AddrGenMode(l, none)
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}
