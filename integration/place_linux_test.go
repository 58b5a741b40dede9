package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/hosts"
	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// machine is one with nothing on it but the programs, which keep their state in
// dir. What they print is in log.
type machine struct {
	*hosts.Host
	dir, log string
}

func newMachine(t *testing.T, n *hosts.Net, name, addr string) *machine {
	t.Helper()
	h, err := n.Add(name, netip.MustParseAddr(addr))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &machine{h, dir, filepath.Join(dir, "log")}
}

// starts starts a program of ours that goes on until the test ends.
func (m *machine) starts(t *testing.T, program string, args ...string) *process.Process {
	t.Helper()
	p, err := process.Start(m.Name, m.Command(program, append(args, "--state", filepath.Join(m.dir, "state"))...), m.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// ends runs one that ends by itself.
func (m *machine) ends(t *testing.T, program string, args ...string) outcome {
	t.Helper()
	args = m.Command(program, append(args, "--state", filepath.Join(m.dir, "state"))...).Args
	return command(t, deadline(t), args[0], args[1:]...)
}

// prints waits until the program that m runs has printed a match of pattern.
func (m *machine) prints(t *testing.T, pattern string) (found string) {
	t.Helper()
	want := regexp.MustCompile(pattern)
	err := process.Until(deadline(t), 50*time.Millisecond, func() (bool, error) {
		b, err := os.ReadFile(m.log)
		found = want.FindString(string(b))
		return found != "", err
	})
	if err != nil {
		b, _ := os.ReadFile(m.log)
		t.Fatalf("%s prints nothing like %q: %v\n%s", m.Name, pattern, err, b)
	}
	return found
}

const (
	anyLink      = `(?m)^shoal1[a-z2-7]+$`
	sidecarsLink = `(?m)^link for sidecars and relays, for --tracker:\nshoal1[a-z2-7]+$`
)

// parsed reads the link in what a tracker printed.
func parsed(t *testing.T, printed string) (string, directory.Link) {
	t.Helper()
	lines := strings.Fields(printed)
	l, err := directory.ParseLink(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	return lines[len(lines)-1], l
}

func newHosts(t *testing.T) *hosts.Net {
	t.Helper()
	n, err := hosts.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestATrackerAlonePrintsALinkWhenItCanBeUsed: first one for relays, which a
// sidecar refuses, then one for all. That one is all that a network needs.
func TestATrackerAlonePrintsALinkWhenItCanBeUsed(t *testing.T) {
	n := newHosts(t)
	tracker := newMachine(t, n, "tracker", "5.1.0.1")
	tracker.starts(t, shoalTracker())
	tracker.prints(t, `(?m)^tracker at 5\.1\.0\.1:9000, this machine's address$`)
	forRelays, l := parsed(t, tracker.prints(t, anyLink))
	if len(l.Entries) != 0 || l.Tracker.Addr.String() != "5.1.0.1:9000" {
		t.Errorf("the first link: %+v", l)
	}
	beside := func() outcome { return tracker.ends(t, shoalTracker(), "--print-link") }
	if got := beside(); strings.TrimSpace(got.out) != forRelays || !strings.Contains(got.stderr, "for relays") {
		t.Errorf("--print-link beside it: %+v", got)
	}
	member := newMachine(t, n, "member", "5.9.0.1")
	got := member.ends(t, shoal(), "proxy", "--tracker", forRelays)
	if got.code != 1 || !strings.Contains(got.stderr, "a link without any is for relays. Ask the tracker's operator for the link that shoal-tracker --print-link prints once relays have joined") {
		t.Errorf("a sidecar with the link for relays: %+v", got)
	}
	cut := member.ends(t, shoal(), "proxy", "--tracker", forRelays[:len(forRelays)-9])
	if cut.code != 2 || !strings.Contains(cut.stderr, "the link is incomplete: copy it whole") {
		t.Errorf("a sidecar with a cut link: %+v", cut)
	}

	for i := range 5 {
		r := newMachine(t, n, fmt.Sprint("relay ", i+1), fmt.Sprintf("5.%d.0.1", 11+i))
		r.starts(t, shoal(), "relay", "--tracker", forRelays)
	}
	full, l := parsed(t, tracker.prints(t, sidecarsLink))
	if len(l.Entries) != 3 {
		t.Errorf("the second link names %d entry relays", len(l.Entries))
	}
	if got := beside(); strings.TrimSpace(got.out) != full || got.stderr != "" {
		t.Errorf("--print-link beside it: %+v, want %s", got, full)
	}
	member.starts(t, shoal(), "proxy", "--tracker", full)
	member.says(t, true, "")
}

// says waits until the sidecar on m is ready or gives a reason that has part in it.
func (m *machine) says(t *testing.T, ready bool, part string) {
	t.Helper()
	err := process.Until(deadline(t), 100*time.Millisecond, func() (bool, error) {
		response, err := m.HTTP().Get("http://127.0.0.1:1081/status.json")
		if err != nil {
			return false, err
		}
		defer response.Body.Close()
		var status struct {
			Ready       bool
			Why, Advice string
		}
		if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&status); err != nil {
			return false, err
		}
		said := status.Why + " " + status.Advice
		return status.Ready == ready && strings.Contains(said, part), fmt.Errorf("ready %v: %s", status.Ready, said)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRelaysInOneNetworkAreTooFewAndTheReasonIsSaid.
func TestRelaysInOneNetworkAreTooFewAndTheReasonIsSaid(t *testing.T) {
	n := newHosts(t)
	tracker := newMachine(t, n, "tracker", "5.1.0.1")
	tracker.starts(t, shoalTracker())
	link, _ := parsed(t, tracker.prints(t, anyLink))
	for i := range 5 {
		r := newMachine(t, n, fmt.Sprint("relay ", i+1), fmt.Sprintf("5.2.0.%d", 1+i))
		r.starts(t, shoal(), "relay", "--tracker", link)
	}
	link, _ = parsed(t, tracker.prints(t, sidecarsLink))
	member := newMachine(t, n, "member", "5.9.0.1")
	member.starts(t, shoal(), "proxy", "--tracker", link)
	member.says(t, false, "the 5 relays that the trackers list lie in 1 network (/16 of IPv4, /32 of IPv6), and circuits with --hops 2 need 4, "+
		"so that nobody who runs one sees two hops of a circuit. Start relays elsewhere.")
}

// TestAMachineBehindNATSaysSo, or works when its router forwards the port.
func TestAMachineBehindNATSaysSo(t *testing.T) {
	n := newHosts(t)
	var trackers []directory.Tracker
	var args []string
	for i := range 3 {
		m := newMachine(t, n, fmt.Sprint("tracker ", i+1), fmt.Sprintf("5.%d.0.1", 1+i))
		m.starts(t, shoalTracker())
		link, l := parsed(t, m.prints(t, anyLink))
		trackers = append(trackers, l.Tracker)
		args = append(args, "--tracker", link)
	}

	// A tracker has nobody to ask.
	alone := newMachine(t, n, "a tracker at home", "10.0.0.4")
	got := alone.ends(t, shoalTracker())
	for _, want := range []string{"address 10.0.0.4 is private", "--advertise", "--within", "forward TCP port 9000"} {
		if got.code != 1 || !strings.Contains(got.stderr, want) {
			t.Errorf("%+v, want %q", got, want)
		}
	}

	// Trackers that are in the same LAN see the private address, too.
	hidden := newMachine(t, n, "a relay at home", "10.0.0.5")
	hidden.starts(t, shoal(), append([]string{"relay"}, args...)...)
	hidden.prints(t, `the address of this relay is not known yet: the trackers are asked where they see it.*10\.0\.0\.5 is private`)
	hidden.prints(t, `the tracker does not take this relay: it has no address that others could reach.*behind NAT: have the router forward TCP port 9001 .* set --advertise`)

	// A router: what comes to it goes on under its own address.
	router := newMachine(t, n, "router", "5.8.0.1")
	relay := newMachine(t, n, "a relay behind it", "192.168.1.50")
	network := directory.Network{ViewEvery: directory.ViewEvery}
	for i, tr := range trackers {
		at := netip.AddrPortFrom(router.Addr, uint16(9101+i))
		forward(t, router, at.String(), tr.Addr.String())
		network.Trackers = append(network.Trackers, directory.Tracker{Key: tr.Key, Addr: at})
	}
	forward(t, router, "5.8.0.1:9001", "192.168.1.50:9001")
	file := filepath.Join(relay.dir, "network.json")
	if err := os.WriteFile(file, network.File(), 0o600); err != nil {
		t.Fatal(err)
	}
	relay.starts(t, shoal(), "relay", "--network", file)
	relay.prints(t, `others reach this relay at this address" address=5\.8\.0\.1:9001 because="seen by [23] of 3 trackers" note=".*behind NAT: have the router forward TCP port 9001 to 192\.168\.1\.50:9001"`)
	relay.prints(t, `this relay is reachable from outside`)
	if got := relay.ends(t, shoal(), "relay", "--print-id"); !strings.HasSuffix(strings.TrimSpace(got.out), "@5.8.0.1:9001") {
		t.Errorf("--print-id beside it: %+v", got)
	}
}

// TestARelayThatMovesTellsItsTrackers where it is now, and is reached there.
func TestARelayThatMovesTellsItsTrackers(t *testing.T) {
	n := newHosts(t)
	tracker := newMachine(t, n, "tracker", "5.1.0.1")
	tracker.starts(t, shoalTracker())
	link, _ := parsed(t, tracker.prints(t, anyLink))
	relay := newMachine(t, n, "relay", "5.2.0.1")
	relay.starts(t, shoal(), "relay", "--tracker", link)
	relay.prints(t, `address=5\.2\.0\.1:9001(?s:.*)this relay is reachable from outside`)
	if err := relay.Move(netip.MustParseAddr("5.3.0.1")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	relay.prints(t, `others reach this relay at this address" address=5\.3\.0\.1:9001 because="seen by 1 of 1 trackers"`)
	t.Logf("after %v", time.Since(began).Round(time.Second))
}

// forward listens on m and passes what comes on to another machine, from m's
// address, until the test ends.
func forward(t *testing.T, m *machine, from, to string) {
	t.Helper()
	ln, err := m.Listen(from)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := m.Dial(ctx, "tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
				defer stop()
				done := make(chan struct{}, 2)
				for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
					go func() { io.Copy(pair[0], pair[1]); done <- struct{}{} }()
				}
				<-done
			}()
		}
	}()
}
