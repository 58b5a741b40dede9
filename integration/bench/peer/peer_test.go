package peer

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

func source(t *testing.T) (p *Peer, addr string) {
	p = new(Peer)
	if err := p.Listen("127.0.0.1:0", &addr); err != nil {
		t.Fatal(err)
	}
	return p, addr
}

func TestASinkCountsWhatASourceSends(t *testing.T) {
	p, addr := source(t)
	ways := []Way{{To: addr, Hash: RandomHash()}, {To: addr, Hash: RandomHash()}}
	var got Pulled
	if err := p.Pull(Pull{Ways: ways, Bytes: 8 << 20, Limit: 20 * time.Second, Every: time.Millisecond}, &got); err != nil {
		t.Fatal(err)
	}
	most := int64(8<<20 + 2*len(chunk))
	if n := got.Bytes(); n < 8<<20 || n > most {
		t.Errorf("%d bytes came, want %d to %d", n, 8<<20, most)
	}
	if d := got.Time(); d <= 0 || d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	for i, s := range got.Streams {
		for k := 1; k < len(s.Samples); k++ {
			if s.Samples[k] < s.Samples[k-1] {
				t.Errorf("stream %d: %d bytes after %d", i, s.Samples[k], s.Samples[k-1])
			}
		}
	}
}

func TestASourceStopsWhenItsTimeIsOver(t *testing.T) {
	p, addr := source(t)
	var got Pulled
	if err := p.Pull(Pull{Ways: []Way{{To: addr}}, Bytes: 1 << 40, Limit: 20 * time.Millisecond}, &got); err != nil {
		t.Fatal(err)
	}
	if got.Bytes() == 0 || got.Time() > 10*time.Second {
		t.Errorf("%d bytes in %v, want some, at once", got.Bytes(), got.Time())
	}
}

func TestACutEndsAPullWell(t *testing.T) {
	p, addr := source(t)
	done := make(chan error)
	var got Pulled
	go func() {
		done <- p.Pull(Pull{Ways: []Way{{To: addr}}, Bytes: 1 << 40, Limit: time.Minute}, &got)
	}()
	for over := false; !over; { // it may not have begun
		p.Cut(struct{}{}, nil)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Pull = %v, want no error", err)
			}
			over = true
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAnswersAreTimedOneByOne(t *testing.T) {
	p, addr := source(t)
	var got Asked
	if err := p.Ask(Ask{Way: Way{To: addr}, Size: 16, Count: 5}, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Trips) != 5 || got.Dialled <= 0 || got.Greeted < got.Dialled {
		t.Errorf("Ask = %+v, want five trips after a greeting after a dial", got)
	}
}

func TestHalfASourceIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		h, _ := readHello(conn)
		conn.Write(hello(h))
		readOrder(conn)
		conn.Write(make([]byte, 1000))
	}()
	err = new(Peer).Pull(Pull{Ways: []Way{{To: l.Addr().String()}}, Bytes: 1 << 20, Limit: time.Second}, new(Pulled))
	if err == nil || !strings.Contains(err.Error(), "1000 bytes") {
		t.Errorf("Pull = %v, want that 1000 bytes are no whole number of pieces", err)
	}
}

func TestWhatIsNoOrderIsSkippedOrRefused(t *testing.T) {
	keepAlive, interested := []byte{0, 0, 0, 0}, []byte{0, 0, 0, 1, 2}
	want := order{3, 4, 5}
	wire := want.append(append(keepAlive, interested...))
	if got, err := readOrder(bytes.NewReader(wire)); err != nil || got != want {
		t.Errorf("readOrder = %v, %v, want %v", got, err, want)
	}
	for i := range len(wire) {
		if _, err := readOrder(bytes.NewReader(wire[:i])); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(wire))
		}
	}
	for _, bad := range [][]byte{{1, 0, 0, 0}, order{0, 0, blockSize + 1}.append(nil)} {
		if _, err := readOrder(bytes.NewReader(bad)); err == nil {
			t.Errorf("accepted %x", bad)
		}
	}
}
