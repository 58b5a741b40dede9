package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// What stands before each IPv4 packet on the file: a virtio_net_hdr, which
// says that a checksum was left out (nobody between the two stacks could have
// flipped a bit), and for the veth pair an Ethernet header.
const (
	vnetSize     = 10
	etherSize    = header.EthernetMinimumSize
	needsCsum    = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	udpOverhead  = header.IPv4MinimumSize + header.UDPMinimumSize
	tcpCsumField = 16 // where a TCP header has its checksum
)

// linkMTU is the interface's. Large, since a packet costs the same whatever it
// holds (BenchmarkBulk), and such that a packet with all its headers fits
// the largest buffer that gVisor recycles.
const linkMTU = 65536 - vnetSize - etherSize - 12

// copyBelow is up to which size a packet is copied out of the read buffer,
// bytes. A larger one takes the buffer with it.
const copyBelow = 16 << 10

// link is the namespace's interface as gVisor's stack sees it.
type link struct {
	file  *os.File
	raw   syscall.RawConn
	ether []byte // what goes before a packet, nil for a TUN
	skip  int    // bytes before a packet on the file

	reader sync.WaitGroup

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher // guarded by mu
}

// openLink takes ownership of fd.
func openLink(fd int, r road, mac, peer []byte) (*link, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("interface: %w", err)
	}
	l := &link{file: os.NewFile(uintptr(fd), string(r)), skip: vnetSize}
	var err error
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("interface: %w", err)
	}
	if r == roadVeth {
		if len(mac) != 6 || len(peer) != 6 {
			l.file.Close()
			return nil, errors.New("interface: no hardware address")
		}
		l.ether = binary.BigEndian.AppendUint16(append(append([]byte{}, peer...), mac...), unix.ETH_P_IP)
		l.skip += etherSize
	}
	return l, nil
}

// start begins to read. A handler of what is read sees all that its caller did.
func (l *link) start() { l.reader.Go(l.readLoop) }

// readLoop delivers packets until the file is closed.
func (l *link) readLoop() {
	slab := buffer.NewViewSize(vnetSize + etherSize + linkMTU)
	defer func() { slab.Release() }()
	for {
		b := slab.AsSlice()
		n, err := l.file.Read(b)
		if err != nil {
			if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENETDOWN) {
				continue
			}
			return
		}
		if n < l.skip+header.IPv4MinimumSize || b[l.skip]>>4 != header.IPv4Version {
			continue
		}
		var v *buffer.View
		if n <= copyBelow {
			v = buffer.NewViewWithData(b[l.skip:n])
		} else {
			v, slab = slab, buffer.NewViewSize(vnetSize+etherSize+linkMTU)
			v.CapLength(n)
			v.TrimFront(l.skip)
		}
		l.deliver(v)
	}
}

// deliver takes ownership of v.
func (l *link) deliver(v *buffer.View) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	defer pkt.DecRef()
	l.mu.RLock()
	d := l.dispatcher
	l.mu.RUnlock()
	if d != nil {
		d.DeliverNetworkPacket(header.IPv4ProtocolNumber, pkt)
	}
}

// WritePackets sends what the stack has for the command.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	sent := 0
	for _, pkt := range pkts.AsSlice() {
		var vnet [vnetSize]byte
		if pkt.TransportProtocolNumber == header.TCPProtocolNumber {
			start := len(l.ether) + len(pkt.NetworkHeader().Slice())
			vnet[0] = needsCsum
			binary.NativeEndian.PutUint16(vnet[6:], uint16(start))
			binary.NativeEndian.PutUint16(vnet[8:], tcpCsumField)
		}
		if err := l.write(append([][]byte{vnet[:], l.ether}, pkt.AsSlices()...)); err != nil {
			return sent, &tcpip.ErrAborted{}
		}
		sent++
	}
	return sent, nil
}

// write sends one packet, given in pieces. A full queue loses it, as on any
// link; an error means that the interface is gone.
func (l *link) write(pieces [][]byte) error {
	var err error
	if e := l.raw.Write(func(fd uintptr) bool {
		for {
			if _, err = unix.Writev(int(fd), pieces); err != unix.EINTR {
				break
			}
		}
		return err != unix.EAGAIN
	}); e != nil {
		return e
	}
	if err == unix.ENOBUFS || err == unix.ENOMEM || err == unix.ENETDOWN {
		return nil
	}
	return err
}

// writeUDP sends one datagram past the stack, which would want an endpoint for
// each source address.
func (l *link) writeUDP(payload []byte, from, to netip.AddrPort) error {
	if !from.Addr().Is4() || !to.Addr().Is4() {
		return errors.New("netns: only IPv4 exists inside")
	}
	if len(payload) > linkMTU-udpOverhead {
		return fmt.Errorf("netns: datagram of %d bytes, most is %d", len(payload), linkMTU-udpOverhead)
	}
	var vnet [vnetSize]byte
	h := make([]byte, udpOverhead)
	ip := header.IPv4(h)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(h) + len(payload)),
		TTL:         64,
		Protocol:    uint8(header.UDPProtocolNumber),
		SrcAddr:     tcpip.AddrFrom4(from.Addr().As4()),
		DstAddr:     tcpip.AddrFrom4(to.Addr().As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	udp := header.UDP(h[header.IPv4MinimumSize:])
	udp.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(header.UDPMinimumSize + len(payload))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), udp.Length())
	sum = checksum.Checksum(payload, sum)
	udp.SetChecksum(^udp.CalculateChecksum(sum))
	return l.write([][]byte{vnet[:], l.ether, h, payload})
}

// MTU and the methods below are what gVisor asks of an interface.
func (l *link) MTU() uint32                             { return linkMTU }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) SetOnCloseAction(func())                 {}
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityTXChecksumOffload | stack.CapabilityRXChecksumOffload
}

// Attach sets where packets go; start reads them.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

func (l *link) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// Close ends the reader; Wait waits for it.
func (l *link) Close() { l.file.Close() }
func (l *link) Wait()  { l.reader.Wait() }
