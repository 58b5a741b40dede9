package netns

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	// tcp ADDR TEXT: sends TEXT and its end, prints what comes back and from where.
	roles["tcp"] = func(args []string) error {
		conn, err := net.Dial("tcp", args[0])
		if errors.Is(err, syscall.ECONNREFUSED) {
			fmt.Println("refused")
			return nil
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprint(conn, args[1])
		conn.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(conn)
		fmt.Printf("%s from %v\n", b, conn.RemoteAddr())
		return err
	}
	// udp ADDR TEXT: sends TEXT, prints what comes back and from where.
	roles["udp"] = func(args []string) error {
		conn, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		to, err := net.ResolveUDPAddr("udp4", args[0])
		if err != nil {
			return err
		}
		b := make([]byte, 1<<16)
		for range 10 {
			if _, err := conn.WriteTo([]byte(args[1]), to); err != nil {
				return err
			}
			conn.SetDeadline(time.Now().Add(patience / 10))
			n, from, err := conn.ReadFrom(b)
			if err == nil {
				fmt.Printf("%s from %v\n", b[:n], from)
				return nil
			}
		}
		return errors.New("no answer")
	}
	// echo: listens, prints its port, tells each visitor where he comes from
	// and echoes what he says. Ends with its input.
	roles["echo"] = func([]string) error {
		ln, err := net.Listen("tcp4", ":0")
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr().(*net.TCPAddr).Port)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, conn.RemoteAddr())
				io.Copy(conn, conn)
			}()
		}
	}
	// mirror ADDR COUNT SEED: sends COUNT random bytes and compares their echo.
	roles["mirror"] = func(args []string) error {
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		count, _ := strconv.ParseInt(args[1], 10, 64)
		seed, _ := strconv.ParseUint(args[2], 10, 64)
		return mirror(conn.(*net.TCPConn), count, seed)
	}
}

// mirror sends count random bytes and compares their echo.
func mirror(conn Conn, count int64, seed uint64) error {
	sent, got := sha256.New(), sha256.New()
	go func() {
		rng := rand.New(rand.NewPCG(seed, 0))
		b := make([]byte, 40_000)
		for left := count; left > 0; {
			part := b[:min(left, 1+rng.Int64N(int64(len(b))))]
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
			sent.Write(part)
			if _, err := conn.Write(part); err != nil {
				break
			}
			left -= int64(len(part))
		}
		conn.CloseWrite()
	}()
	n, err := io.Copy(got, conn)
	if err != nil {
		return err
	}
	if n != count || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("%d bytes came back of %d, or other ones", n, count)
	}
	return nil
}

// echoing accepts every connection and echoes it.
func echoing(context.Context, netip.AddrPort, netip.AddrPort) (func(Conn), error) {
	return func(c Conn) {
		defer c.Close()
		io.Copy(c, c)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	}, nil
}

func TestTCPReachesTheHandlerAtAnyAddress(t *testing.T) {
	for _, dst := range []string{"198.18.4.2:6881", "8.8.8.8:443", "192.168.1.1:80", "169.254.169.254:80", "10.64.0.1:22"} {
		asked := make(chan [2]netip.AddrPort, 1)
		h := traffic{tcp: func(_ context.Context, src, dst netip.AddrPort) (func(Conn), error) {
			asked <- [2]netip.AddrPort{src, dst}
			return func(c Conn) {
				defer c.Close()
				b, _ := io.ReadAll(c)
				fmt.Fprintf(c, "%s, %v to %v", b, c.RemoteAddr(), c.LocalAddr())
				c.CloseWrite()
			}, nil
		}}
		out := mustRun(t, as(t, h, "tcp", dst, "hello"))
		got := <-asked
		if got[1].String() != dst || got[0].Addr() != ClientAddr {
			t.Errorf("the handler was asked for %v to %v, want %v to %s", got[0], got[1], ClientAddr, dst)
		}
		if want := fmt.Sprintf("hello, %v to %s from %s", got[0], dst, dst); out != want {
			t.Errorf("the command heard %q, want %q", out, want)
		}
	}
}

func TestRefusedConnectionsAreRefusedAtOnce(t *testing.T) {
	h := traffic{tcp: func(_ context.Context, _, dst netip.AddrPort) (func(Conn), error) {
		if dst.Port() == 1 {
			return nil, nil
		}
		return nil, errNobody
	}}
	for _, dst := range []string{"198.18.4.2:6881", "198.18.4.2:1"} {
		if out := mustRun(t, as(t, h, "tcp", dst, "hello")); out != "refused" {
			t.Errorf("the command heard %q, want a refusal", out)
		}
	}
}

func TestTheHandlerMayTakeItsTime(t *testing.T) {
	asked, decide := make(chan struct{}), make(chan error)
	h := traffic{tcp: func(ctx context.Context, src, dst netip.AddrPort) (func(Conn), error) {
		asked <- struct{}{}
		if err := <-decide; err != nil {
			return nil, err
		}
		return echoing(ctx, src, dst)
	}}
	for _, c := range []struct {
		err  error
		want string
	}{{nil, "late from 198.18.4.2:6881"}, {errNobody, "refused"}} {
		l := begin(t, as(t, h, "tcp", standIn.String(), "late"))
		<-asked
		decide <- c.err
		if got := l.line(); got != c.want {
			t.Errorf("the command heard %q, want %q", got, c.want)
		}
		l.wait()
	}
}

func TestBytesArriveAsTheyLeft(t *testing.T) {
	const conns, size = 6, 8 << 20
	script := ""
	for i := range conns {
		script += fmt.Sprintf("%q 198.18.4.%d:6881 %d %d & ", executablePath(t), i, size, i)
	}
	cfg := shell(t, traffic{tcp: echoing}, script+"wait")
	cfg.Env = append(cfg.Env, roleEnv+"=mirror")
	if out := mustRun(t, cfg); out != "" {
		t.Error(out)
	}
}

func TestUDPGoesBothWays(t *testing.T) {
	other := netip.MustParseAddrPort("203.0.113.9:4242")
	var n *Network
	h := traffic{udp: func(payload []byte, src, dst netip.AddrPort) {
		if dst != standIn || string(payload) != "ping" || src.Addr() != ClientAddr {
			return
		}
		n.WriteUDP([]byte("pong"), other, src)
	}}
	cfg := as(t, h, "udp", standIn.String(), "ping")
	cfg.Ready = func(_ context.Context, network *Network) { n = network }
	if got, want := mustRun(t, cfg), "pong from "+other.String(); got != want {
		t.Errorf("the command heard %q, want %q", got, want)
	}
}

func TestLargeDatagrams(t *testing.T) {
	var n *Network
	h := traffic{udp: func(payload []byte, src, dst netip.AddrPort) {
		if err := n.WriteUDP(payload[:linkMTU-udpOverhead+1], dst, src); err == nil {
			t.Error("a datagram longer than the interface takes was sent")
		}
		n.WriteUDP(payload[:linkMTU-udpOverhead], dst, src)
	}}
	text := strings.Repeat("0123456789", 6550) // the kernel sends it in two fragments
	cfg := as(t, h, "udp", standIn.String(), text)
	cfg.Ready = func(_ context.Context, network *Network) { n = network }
	if got, want := mustRun(t, cfg), text[:linkMTU-udpOverhead]+" from "+standIn.String(); got != want {
		t.Errorf("%d bytes came back, want %d", len(got), len(want))
	}
}

func TestInboundComesFromThePeersOwnAddress(t *testing.T) {
	l := begin(t, as(t, traffic{}, "echo"))
	port, err := strconv.ParseUint(l.line(), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"198.18.0.1:0", "198.18.0.2:6881", "198.19.255.254:51413", "198.18.0.1:0"} {
		src := netip.MustParseAddrPort(from)
		conn, err := l.net.DialTCP(t.Context(), src, uint16(port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "hello")
		conn.CloseWrite()
		b, err := io.ReadAll(conn)
		seen, said, _ := strings.Cut(string(b), "\n")
		got, perr := netip.ParseAddrPort(seen)
		if err != nil || perr != nil || said != "hello" {
			t.Fatalf("the command said %q, %v", b, err)
		}
		if got.Addr() != src.Addr() || src.Port() != 0 && got.Port() != src.Port() {
			t.Errorf("the command saw %v, want %v", got, src)
		}
	}
}

func TestInboundToAClosedPortFailsAtOnce(t *testing.T) {
	l := begin(t, as(t, traffic{}, "echo"))
	l.line()
	if _, err := l.net.DialTCP(t.Context(), standIn, 1); err == nil {
		t.Error("connected to a port where nobody listens")
	}
	for _, from := range []netip.AddrPort{{}, netip.MustParseAddrPort("[::1]:1"), netip.AddrPortFrom(ClientAddr, 0)} {
		if _, err := l.net.DialTCP(t.Context(), from, 1); err == nil {
			t.Errorf("dialled from %v", from)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.net.DialTCP(ctx, standIn, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("dialled with a context that is over: %v", err)
	}
}

func TestInboundMirror(t *testing.T) {
	l := begin(t, as(t, traffic{}, "echo"))
	port, _ := strconv.ParseUint(l.line(), 10, 16)
	conn, err := l.net.DialTCP(t.Context(), standIn, uint16(port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for b := make([]byte, 1); b[0] != '\n'; {
		if _, err := conn.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := mirror(conn, 16<<20, 7); err != nil {
		t.Error(err)
	}
}

func TestPublishedPortsReachTheCommand(t *testing.T) {
	port := freePort(t) // inside it's free anyway, but the command needs to know it beforehand
	cfg := as(t, traffic{}, "serve", strconv.Itoa(port))
	cfg.Publish = []Publish{
		{Host: netip.MustParseAddrPort("127.0.0.1:0"), Port: uint16(port)},
		{Host: netip.MustParseAddrPort("127.0.0.2:0"), Port: uint16(port)},
		{Host: netip.MustParseAddrPort("127.0.0.1:0"), Port: 1},
	}
	l := begin(t, cfg)
	l.line()
	at := l.net.Published()
	if len(at) != 3 || at[0].Port() == 0 || at[1].Addr() != netip.MustParseAddr("127.0.0.2") {
		t.Fatalf("published at %v", at)
	}
	for _, a := range at[:2] {
		conn, err := net.Dial("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, len("hello"))
		if _, err := io.ReadFull(conn, first); err != nil || string(first) != "hello" {
			t.Fatalf("the command said %q, %v", first, err)
		}
		if err := mirror(conn.(*net.TCPConn), 1<<20, 3); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	conn, err := net.Dial("tcp", at[2].String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port where the command doesn't listen: read %d, %v", n, err)
	}
	l.stop()
	l.wait()
	for _, a := range at {
		if _, err := net.Dial("tcp", a.String()); err == nil {
			t.Errorf("%v is still open", a)
		}
	}
}

func TestAPublishedPortIsWaitedForUntilTheCommandOpensIt(t *testing.T) {
	port, begun := freePort(t), filepath.Join(t.TempDir(), "begun")
	cfg := as(t, traffic{}, "serve", strconv.Itoa(port), begun)
	cfg.Publish = []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:0"), Port: uint16(port)}}
	l := begin(t, cfg)
	conn, err := net.Dial("tcp", l.net.Published()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	first := make([]byte, len("hello"))
	if n, err := conn.Read(first); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("before the command listens: read %d, %v", n, err)
	}
	if err := os.WriteFile(begun, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l.line()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conn, first); err != nil || string(first) != "hello" {
		t.Errorf("the command said %q, %v", first, err)
	}
	l.stop()
	l.wait()
}

// TestTheURLOfAPublishedPortIsSaid once the command listens there, at whatever
// address of its own.
func TestTheURLOfAPublishedPortIsSaid(t *testing.T) {
	port := freePort(t)
	for _, addr := range []string{"127.0.0.1", "0.0.0.0", "[::1]", "[::]", "10.64.0.2"} {
		said := make(chan string, 10)
		cfg := as(t, traffic{}, "serve", fmt.Sprintf("%s:%d", addr, port))
		cfg.Publish = []Publish{{Host: netip.MustParseAddrPort("0.0.0.0:0"), Port: uint16(port)}, {Host: netip.MustParseAddrPort("127.0.0.1:0"), Port: 1}}
		cfg.Say = func(line string) { said <- line }
		l := begin(t, cfg)
		l.line()
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.net.Published()[0].Port())
		select {
		case got := <-said:
			if want := fmt.Sprintf("the command listens on port %d: http://%v/", port, at); got != want {
				t.Errorf("%s: said %q, want %q", addr, got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nothing is said", addr)
		}
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		first := make([]byte, len("hello"))
		if _, err := io.ReadFull(conn, first); err != nil || string(first) != "hello" {
			t.Errorf("%s: the command said %q, %v", addr, first, err)
		}
		conn.Close()
		l.stop()
		l.wait()
		if len(said) > 0 {
			t.Errorf("%s: said %q too", addr, <-said)
		}
	}
}

func init() {
	// serve [ADDR:]PORT [FILE]: listens at 127.0.0.1 unless ADDR says
	// otherwise, once the file is there, and echoes
	// after a greeting.
	roles["serve"] = func(args []string) error {
		for len(args) > 1 {
			if _, err := os.Stat(args[1]); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		addr := args[0]
		if !strings.Contains(addr, ":") {
			addr = "127.0.0.1:" + addr
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		fmt.Println("listening")
		for {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, "hello")
				io.Copy(conn, conn)
			}()
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func TestAPortInUseIsAClearError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := shell(t, traffic{}, "exit 0")
	cfg.Publish = []Publish{{Host: netip.MustParseAddrPort(ln.Addr().String()), Port: 80}}
	code, err := Run(t.Context(), cfg)
	if code != ExitNotStarted || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Run = %d, %v", code, err)
	}
}

func TestSeveralAtOnce(t *testing.T) {
	var ls []*live
	for i := range 3 {
		name := fmt.Sprint("sidecar ", i)
		h := traffic{tcp: func(context.Context, netip.AddrPort, netip.AddrPort) (func(Conn), error) {
			return func(c Conn) { io.WriteString(c, name); c.Close() }, nil
		}}
		ls = append(ls, begin(t, as(t, h, "tcp", standIn.String(), "")))
	}
	for i, l := range slices.Backward(ls) {
		if got, want := l.line(), fmt.Sprintf("sidecar %d from %v", i, standIn); got != want {
			t.Errorf("command %d heard %q, want %q", i, got, want)
		}
		l.wait()
	}
}

func TestAContextThatIsOverStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := shell(t, traffic{}, "exit 0")
	cfg.Ready = func(context.Context, *Network) { t.Error("a namespace came up") }
	if code, err := Run(ctx, cfg); code != ExitNotStarted || !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %d, %v", code, err)
	}
}

func TestOpenConnectionsEndWithTheCommand(t *testing.T) {
	served := make(chan error, 1)
	h := traffic{tcp: func(context.Context, netip.AddrPort, netip.AddrPort) (func(Conn), error) {
		return func(c Conn) {
			io.WriteString(c, "x")
			_, err := io.Copy(io.Discard, c)
			served <- err
		}, nil
	}}
	l := begin(t, as(t, h, "hold", standIn.String()))
	l.line()
	l.stop()
	l.wait()
	select {
	case <-served:
	default:
		t.Error("Run returned before the handler of a connection")
	}
	if _, err := l.net.DialTCP(t.Context(), standIn, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("DialTCP after the end: %v", err)
	}
	if err := l.net.WriteUDP(nil, standIn, standIn); !errors.Is(err, ErrClosed) {
		t.Errorf("WriteUDP after the end: %v", err)
	}
}

func init() {
	// hold ADDR: connects, says so, and never ends.
	roles["hold"] = func(args []string) error {
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		conn.Read(make([]byte, 1))
		fmt.Println("connected")
		select {}
	}
}

func init() {
	// lookup NETWORK SERVER NAME…: asks one nameserver, or with "" the system's.
	roles["lookup"] = func(args []string) error {
		r := &net.Resolver{PreferGo: true}
		if args[1] != "" {
			r.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, args[0], args[1])
			}
		}
		for _, name := range args[2:] {
			addrs, err := r.LookupHost(context.Background(), name)
			if e, ok := err.(*net.DNSError); ok && e.IsNotFound {
				fmt.Println("no such name")
			} else if err != nil {
				return err
			} else {
				fmt.Println(strings.Join(addrs, " "))
			}
		}
		return nil
	}
}

func TestNamesResolveInside(t *testing.T) {
	for _, c := range []struct{ network, server string }{
		{"udp", ""},
		{"udp", "10.64.0.1:53"},
		{"udp", "9.9.9.9:53"},
		{"tcp", "9.9.9.9:53"},
		{"udp", "127.0.0.53:53"},
		{"udp", "127.0.0.1:53"},
		{"tcp", "127.0.0.1:53"},
		{"udp", "127.0.1.1:53"},
		{"tcp", "127.9.8.7:53"},
		{"udp", "10.64.0.2:53"},
		{"tcp", "10.64.0.2:53"},
		{"udp", "[::1]:53"},
		{"tcp", "[::1]:53"},
		{"udp", "[2001:db8::53]:53"},
		{"tcp", "[2001:db8::53]:53"},
		{"udp", "[fd00::1]:53"},
	} {
		out := mustRun(t, as(t, traffic{name: nameOf}, "lookup", c.network, c.server, "tracker.example", "other.example", "localhost"))
		if want := "198.18.9.9\nno such name\n"; !strings.HasPrefix(out, want) || !strings.Contains(out, "127.0.0.1") {
			t.Errorf("%s at %q: %q, want %q and loopback", c.network, c.server, out, want)
		}
	}
}
