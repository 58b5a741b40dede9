package hop

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandshakesGetHalfAProcessorWhileCellsAreCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took, workers = 300 * time.Microsecond, 4
		var p pace
		cells := uint64(0)
		if got := p.rest(took, cells, workers); got != 0 {
			t.Errorf("at the start: rests %v", got)
		}
		time.Sleep(time.Second)
		cells += 100 // hardly any
		if got := p.rest(took, cells, workers); got != 0 {
			t.Errorf("with hardly any cells: rests %v", got)
		}
		busy := time.Duration(0)
		began := time.Now()
		for time.Since(began) < 10*time.Second { // one of four workers, and cells all the time
			time.Sleep(took)
			busy += took
			cells += 10
			time.Sleep(p.rest(took, cells, workers))
		}
		if got := float64(workers*busy) / float64(10*time.Second); got > 0.55 || got < 0.45 {
			t.Errorf("handshakes took %.2f processors, want half of one", got)
		}
		time.Sleep(time.Second)
		if got := p.rest(took, cells+1, workers); got != 0 {
			t.Errorf("after the cells: rests %v", got)
		}
	})
}

func TestDoorsLeaveRoomForOtherAddresses(t *testing.T) {
	addr := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	d := &doors{max: 1000}
	var in []*visit
	for i := range maxShakingFrom + 1 {
		v, ok := d.enter(addr("192.0.2.1:5"))
		if ok != (i < maxShakingFrom) {
			t.Fatalf("link %d of one address: %v", i, ok)
		}
		if ok {
			in = append(in, v)
		}
	}
	if _, ok := d.enter(addr("192.0.2.2:5")); !ok {
		t.Error("another address finds no room")
	}
	in[0].stand()
	in[0].stand() // counts once
	v, ok := d.enter(addr("192.0.2.1:5"))
	if !ok {
		t.Error("once a handshake is over there is room for one")
	}
	if _, ok := d.enter(addr("[::ffff:192.0.2.1]:5")); ok {
		t.Error("the same address in other words is another")
	}
	v.leave()
	for _, v := range in {
		v.leave()
	}
	if d.links != 1 || d.shaking != 1 || len(d.from) != 1 {
		t.Errorf("%d links, %d handshakes, %d addresses are left", d.links, d.shaking, len(d.from))
	}
	for i := range maxShakingFrom + 1 {
		_, ok := d.enter(addr(net.JoinHostPort("2001:db8::"+string("123456789"[i%9]), "5")))
		if ok != (i < maxShakingFrom) {
			t.Fatalf("link %d of one /64: %v", i, ok)
		}
	}
	d.max = d.links
	if _, ok := d.enter(addr("192.0.2.3:5")); ok {
		t.Error("more links than the configuration allows")
	}
}
