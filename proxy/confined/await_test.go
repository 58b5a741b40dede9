package confined

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/proxy/netns"
)

// told collects what the user is told, each line with its second.
type told struct {
	began time.Time
	lines []string
}

func (t *told) say(line string) {
	t.lines = append(t.lines, fmt.Sprintf("%.0f %s", time.Since(t.began).Seconds(), line))
}

// readiness is of a sidecar that has just been started, until it is set.
type readiness struct{ fault atomic.Pointer[fault.Fault] }

func starting() *readiness {
	r := new(readiness)
	r.set(because(fault.Starting, "", ""))
	return r
}

func (r *readiness) set(f *fault.Fault) { r.fault.Store(f) }

func (r *readiness) why() *fault.Fault { return r.fault.Load() }

func because(c fault.Cause, text, advice string) *fault.Fault { return fault.New(c, text, advice, nil) }

func TestAWaitIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		course func(r *readiness)
		ready  bool
		want   []string
	}{
		"ready at once": {func(r *readiness) { r.set(nil) }, true, nil},
		"ready soon": {func(r *readiness) {
			time.Sleep(time.Second)
			r.set(nil)
		}, true, nil},
		"ready late": {func(r *readiness) {
			time.Sleep(5*time.Second - readyPoll/2)
			r.set(nil)
		}, true, []string{"2 waiting for the network. No relay has answered yet. The command starts without it in 28 s.", "5 the network is ready"}},
		"never ready": {func(r *readiness) {
			r.set(because(fault.Timeout, "the guard does not answer", "Try again."))
			time.Sleep(10*time.Second - readyPoll/2)
			r.set(because(fault.NoNetwork, "this computer has no route", ""))
		}, false, []string{
			"2 waiting for the network. The guard does not answer. Try again. The command starts without it in 28 s.",
			"10 waiting for the network. This computer has no route. The command starts without it in 20 s.",
			"30 the command starts without the network. Nothing that it sends goes anywhere else, and a line follows when the network is ready.",
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := starting()
			user := told{began: time.Now()}
			go c.course(r)
			if ready := New(nil, r.why).AwaitReady(t.Context(), user.say); ready != c.ready || !slices.Equal(user.lines, c.want) {
				t.Errorf("%s: ready %v, %q, want %v, %q", name, ready, user.lines, c.ready, c.want)
			}
			synctest.Wait()
			time.Sleep(time.Minute) // for the course to end
		})
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		if New(nil, starting().why).AwaitReady(ctx, func(string) {}) || time.Since(began) > 3*time.Second {
			t.Errorf("ready after %v", time.Since(began))
		}
	})
}

func TestACommandThatSendsNothingIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		ready  bool
		course func(d *Door, r *readiness)
		want   []string
	}{
		"all is well": {true, func(d *Door, r *readiness) { d.heard.Store(true) }, nil},
		"the network comes later": {false, func(d *Door, r *readiness) {
			d.heard.Store(true)
			time.Sleep(7500 * time.Millisecond)
			r.set(nil)
		}, []string{"8 the network is ready"}},
		"nothing is sent": {true, func(d *Door, r *readiness) {}, []string{"60 the command has announced no torrent"}},
		"something late":  {true, func(d *Door, r *readiness) { time.Sleep(59 * time.Second); d.heard.Store(true) }, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := starting()
			if c.ready {
				r.set(nil)
			}
			d := New(nil, r.why)
			user := told{began: time.Now()}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			go c.course(d, r)
			d.Attend(ctx, c.ready, user.say, netns.Config{})
			same := slices.EqualFunc(user.lines, c.want, strings.HasPrefix)
			if !same {
				t.Errorf("%s: %q, want %q", name, user.lines, c.want)
			}
			time.Sleep(2 * time.Minute)
		})
	}
}

func TestWhatACommandMayBeBoundToIsNamed(t *testing.T) {
	if got := nothingSent(netns.Config{}); !strings.Contains(got, "only shoal0 with 10.64.0.2") {
		t.Error(got)
	}
	if got := nothingSent(netns.Config{Interface: "wg0", Addr: netip.MustParseAddr("10.2.0.2")}); !strings.Contains(got, "only wg0 with 10.2.0.2") {
		t.Error(got)
	}
	for addr, bad := range map[string]bool{"10.2.0.2": false, "192.168.1.5": false, "10.65.3.4": true, "198.18.0.1": true} {
		err := CheckAddr(netns.Config{Addr: netip.MustParseAddr(addr)})
		if bad != (err != nil) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
