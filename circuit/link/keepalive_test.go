package link

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/link/linktest"
	"github.com/shoal-p2p/shoal/circuit/window"
)

// pair is a link whose wire can be cut.
type pair struct {
	wire net.Conn
	x, y *running
}

func newPair(t *testing.T, s linktest.Shape) *pair {
	a, b := connect(t, s)
	return &pair{a.wire.Conn, run(t, a, true), run(t, b, true)}
}

// cut has the wire lose everything for d, and returns after how long each side
// gave the link up; 0 when it did not.
func (p *pair) cut(d time.Duration) (x, y time.Duration, err error) {
	linktest.Lose(p.wire, d)
	began := time.Now()
	over := time.After(max(2*holdTime, 3*d))
	for x == 0 || y == 0 {
		select {
		case err = <-p.x.done:
			x = time.Since(began)
		case <-p.y.done:
			y = time.Since(began)
		case <-over:
			return x, y, err
		}
	}
	return x, y, err
}

const forever = 1000 * time.Hour

func TestALinkWhoseWireIsCutEndsWithinItsHoldTime(t *testing.T) {
	for _, busy := range []bool{false, true} {
		for phase := time.Duration(0); phase < 2*keepaliveEvery; phase += 300 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, linktest.Shape{Delay: 10 * time.Millisecond})
				near := open(t, p.x.Link)
				near.hears(t, "created")
				far := <-p.y.accepted
				far.c.Grant(1 << 40)
				stop := make(chan struct{})
				if busy {
					go func() {
						for {
							select {
							case <-stop:
								return
							case <-time.After(10 * time.Millisecond):
								near.send(1, 1)
							}
						}
					}()
				}
				time.Sleep(10*time.Second + phase)
				x, y, err := p.cut(forever)
				close(stop)
				for _, took := range []time.Duration{x, y} {
					if took < holdTime-2*keepaliveEvery || took > holdTime+20*time.Millisecond {
						t.Errorf("busy %v, %v later: the sides gave up after %v and %v", busy, phase, x, y)
					}
				}
				if fault.Of(err).Cause != fault.Silent {
					t.Errorf("%v", err)
				}
				near.wait(t, "the end", func() bool { return near.told[len(near.told)-1] == "destroyed: gone" })
				far.hears(t, "destroyed: gone")
			})
		}
	}
}

func TestAShortLossIsNoEnd(t *testing.T) {
	for _, delay := range []time.Duration{time.Millisecond, 150 * time.Millisecond} {
		for phase := time.Duration(0); phase < 2*keepaliveEvery; phase += 100 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, linktest.Shape{Delay: delay})
				time.Sleep(10*time.Second + phase)
				if x, y, err := p.cut(3 * time.Second); x != 0 || y != 0 {
					t.Errorf("delay %v, %v later: 3 s of loss ended the link after %v and %v: %v", delay, phase, x, y, err)
				}
				p.x.stop()
				<-p.y.done
			})
		}
	}
}

func TestAnIdleLinkStandsForLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, linktest.Shape{})
		before, _ := p.y.Bytes()
		time.Sleep(time.Hour)
		got, _ := p.y.Bytes()
		if want := uint64(time.Hour / (2 * keepaliveEvery) * (recordHeader + cell.HeaderSize + cell.TagSize)); got-before > want {
			t.Errorf("%d bytes came in an idle hour, want %d", got-before, want)
		}
		select {
		case err := <-p.x.done:
			t.Errorf("an idle link ended: %v", err)
		default:
		}
		p.x.stop()
		<-p.y.done
	})
}

// A side that sends has no need of KEEPALIVE.
func TestCellsAreSignOfLifeEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, linktest.Shape{})
		near := open(t, p.x.Link)
		near.hears(t, "created")
		far := <-p.y.accepted
		far.c.Grant(1 << 40)
		synctest.Wait()
		before, _ := p.y.Bytes()
		const cells = 3600
		for range cells {
			time.Sleep(keepaliveEvery / 2)
			near.send(1, 1)
		}
		synctest.Wait()
		got, _ := p.y.Bytes()
		if want := uint64(cells * (recordHeader + cell.FrameSize + cell.TagSize)); got-before != want {
			t.Errorf("%d bytes came with %d cells, want %d", got-before, cells, want)
		}
		p.x.stop()
		<-p.y.done
	})
}

// A link that waits for its turn under a limit says that it is there.
func TestALimitHoldsNoKeepaliveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := NewLimit(10e3) // a cell takes 0.4 s: of 60 links each has its turn after 25 s
		var all []*pair
		for range 60 {
			a, b := connect(t, linktest.Shape{})
			a.Limit(limit)
			p := &pair{a.wire.Conn, run(t, a, true), run(t, b, true)}
			near := open(t, a)
			near.hears(t, "created")
			far := <-p.y.accepted
			far.c.Grant(1000)
			near.wait(t, "credit", func() bool { return len(near.told) == 2 })
			near.send(1000, 1)
			all = append(all, p)
		}
		time.Sleep(10 * time.Minute)
		for i, p := range all {
			select {
			case err := <-p.y.done:
				t.Fatalf("link %d ended: %v", i, err)
			default:
			}
		}
		for _, p := range all {
			p.x.stop()
			<-p.y.done
		}
	})
}

// A process that was stopped can't tell from its clock that nothing came.
func TestAProcessThatWasStoppedAsksAgain(t *testing.T) {
	a, b := connect(t, linktest.Shape{})
	x, y := run(t, a, true), run(t, b, true)
	defer y.stop()
	defer x.stop()
	open(t, a).hears(t, "created") // both run
	late := int64(window.Clock() - 2*holdTime)
	a.mu.Lock()
	a.alive.next = time.Duration(late)
	a.wire.heard.Store(late)
	a.mu.Unlock()
	a.look()
	select {
	case <-a.Done():
		t.Error("the link was given up by a clock that went on alone")
	default:
	}
	a.wire.heard.Store(late)
	a.look()
	select {
	case <-a.Done():
	default:
		t.Error("a link that was silent for long stands")
	}
}
