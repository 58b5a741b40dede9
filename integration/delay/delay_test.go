package delay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// through returns both ends of a connection through a forwarder that delays by d.
func through(t testing.TB, d time.Duration) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := Listen(loopback, ln.Addr().(*net.TCPAddr).AddrPort(), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 3, 1, 1)}}
	if runtime.GOOS != "linux" {
		dialer.LocalAddr = nil
	}
	conn, err := dialer.Dial("tcp", f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near = conn.(*net.TCPConn)
	far, err = ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestEachDirectionIsLate(t *testing.T) {
	const d = 40 * time.Millisecond
	start := time.Now() // the handshake begins when the forwarder sees the connection
	near, far := through(t, d)
	b := make([]byte, 4)

	near.Write([]byte("ping"))
	io.ReadFull(far, b)
	if took := time.Since(start); took < 3*d {
		t.Errorf("the first bytes took %v, want %v: two for the handshake and one for themselves", took, 3*d)
	}
	const tries = 200 // a busy machine holds up some of them
	least := time.Duration(math.MaxInt64)
	for i := 0; i < 3 || i < tries && least > 3*d; i++ {
		start = time.Now()
		near.Write([]byte("ping"))
		io.ReadFull(far, b)
		far.Write([]byte("pong"))
		io.ReadFull(near, b)
		if least = min(least, time.Since(start)); least < 2*d {
			t.Fatalf("a round trip took %v, want %v", least, 2*d)
		}
	}
	if least > 3*d {
		t.Errorf("the fastest round trip took %v, want %v", least, 2*d)
	}
}

func TestTheFarEndSeesWhoDials(t *testing.T) {
	near, far := through(t, 0)
	if got, want := far.RemoteAddr().(*net.TCPAddr).IP, near.LocalAddr().(*net.TCPAddr).IP; !got.Equal(want) {
		t.Errorf("the far end sees %v, want %v", got, want)
	}
}

func TestTheEndComesAfterTheBytesAndOneWayAtATime(t *testing.T) {
	const d = 20 * time.Millisecond
	near, far := through(t, d)
	sent := bytes.Repeat([]byte("distance"), 1<<19) // 4 MiB: more than minRing
	go func() {
		near.Write(sent)
		near.CloseWrite()
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes, %v, want the %d that were sent", len(got), err, len(sent))
	}
	start := time.Now()
	far.Write([]byte("thanks"))
	far.Close()
	if got, err = io.ReadAll(near); string(got) != "thanks" || err != nil {
		t.Errorf("the other direction brought %q, %v", got, err)
	}
	if took := time.Since(start); took < d {
		t.Errorf("the end came after %v, want %v", took, d)
	}
}

func TestManySmallWritesArriveInOrder(t *testing.T) {
	near, far := through(t, time.Millisecond)
	sum := sha256.New()
	go func() {
		r := rand.New(rand.NewPCG(1, 2))
		b := make([]byte, 9000)
		for range 2000 {
			p := b[:1+r.IntN(len(b))]
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			sum.Write(p)
			near.Write(p)
		}
		near.CloseWrite()
	}()
	got := sha256.New()
	if _, err := io.Copy(got, far); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sum(nil), sum.Sum(nil)) {
		t.Error("the bytes are not those that were sent")
	}
}

func TestCloseEndsConnectionsAndNobodyListens(t *testing.T) {
	before := runtime.NumGoroutine()
	f, err := Listen(loopback, netip.MustParseAddrPort("127.0.0.1:1"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", f.Addr().String())
	switch {
	case errors.Is(err, syscall.ECONNRESET): // it was ended before Dial had looked
	case err != nil:
		t.Fatal(err)
	default:
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a connection to nobody stays open")
		}
	}
	f.Close()
	if _, err := net.Dial("tcp", f.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Close = %v, want %v", err, syscall.ECONNREFUSED)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines at the end, %d at the beginning", after, before)
	}
}

// BenchmarkForward moves 1 MiB at a time over 25 ms and says MB/s.
func BenchmarkForward(b *testing.B) {
	for _, d := range []time.Duration{0, 25 * time.Millisecond} {
		b.Run(d.String(), func(b *testing.B) {
			near, far := through(b, d)
			go io.Copy(io.Discard, far)
			chunk := make([]byte, 1<<20)
			near.Write(chunk)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := near.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
