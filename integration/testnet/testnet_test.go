//go:build unix

package testnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// TestMain lets the test binary stand in for the programs: these tests are
// about starting and stopping them. Their own tests are in package integration.
func TestMain(m *testing.M) {
	if os.Getenv("TESTNET_PROGRAM") != "" {
		os.Exit(play(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// play is a tracker, a relay or a sidecar as far as testnet can tell.
func play(args []string) int {
	role := "tracker"
	if args[0] == "relay" || args[0] == "proxy" {
		role, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet(role, flag.ExitOnError)
	listen := flags.String("listen", "", "")
	advertise := flags.String("advertise", "", "")
	status := flags.String("status", "", "")
	network := flags.String("network", "", "")
	flags.String("socks", "", "")
	flags.String("state", "", "")
	flags.String("source", "", "")
	flags.Int("hops", 2, "")
	printID := flags.Bool("print-id", false, "")
	never := flags.Bool("never", false, "")
	flags.Parse(args)

	if *printID {
		fmt.Printf("%v@%s\n", keyOf(*advertise), *advertise)
		return 0
	}
	n, err := directory.LoadNetwork(*network)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if role == "tracker" {
		link := directory.Link{Tracker: directory.Tracker{Key: keyOf(*advertise), Addr: netip.MustParseAddrPort(*advertise)}, Test: true}
		fmt.Printf("for relays\n%v\nfor sidecars\n", link)
		link.Entries = n.Entries
		fmt.Println(link)
	}
	at := *listen
	if role == "proxy" {
		at = *status
	}
	ln, err := net.Listen("tcp", at)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"ready":%t,"why":"it never will be"}`, !*never)
	}))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	return 0
}

func keyOf(addr string) onion.ID { return sha256.Sum256([]byte(addr)) }

// config uses the test binary as both programs.
func config(t *testing.T) Config {
	t.Setenv("TESTNET_PROGRAM", "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector's programs take a second to leave
	return Config{Trackers: 2, Relays: 4, Sidecars: 2, Settle: -1, State: t.TempDir(), Shoal: os.Args[0], Tracker: os.Args[0]}
}

// described calls describe with each line that Run prints.
type described func(line []byte)

func (d described) Write(b []byte) (int, error) { d(b); return len(b), nil }

func TestOneLineDescribesEverythingAndNothingIsLeft(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := config(t)
	c.LinkDelay = time.Millisecond
	var lines [][]byte
	var warnings bytes.Buffer
	err := Run(ctx, c, described(func(line []byte) {
		lines = append(lines, bytes.Clone(line))
		cancel()
	}), true, &warnings)
	if err != nil || warnings.Len() > 0 {
		t.Fatalf("Run = %v, warnings %q", err, &warnings)
	}
	if len(lines) != 1 || bytes.Count(lines[0], []byte("\n")) != 1 {
		t.Fatalf("%d writes: %q, want one line", len(lines), lines)
	}
	var got struct {
		Network  string
		Trackers []struct {
			Link, Addr string
			PID        int
		}
		Relays []struct {
			ID, Addr string
			PID      int
		}
		Sidecars []struct {
			SOCKS, Status, State string
			PID                  int
		}
	}
	if err := json.Unmarshal(lines[0], &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Trackers) != 2 || len(got.Relays) != 4 || len(got.Sidecars) != 2 {
		t.Fatalf("described: %s", lines[0])
	}
	if link, err := directory.ParseLink(got.Trackers[0].Link); err != nil || len(link.Entries) != 4 || link.Tracker.Addr.String() != got.Trackers[0].Addr {
		t.Errorf("tracker link = %+v, %v, want the running tracker's, with entry relays and its advertised address %s", link, err, got.Trackers[0].Addr)
	}
	if got.Relays[2].ID != keyOf(got.Relays[2].Addr).String() || !strings.HasPrefix(got.Sidecars[1].SOCKS, "127.0.0.1:") || !strings.HasPrefix(got.Sidecars[1].Status, "http://127.0.0.1:") {
		t.Errorf("described: %s", lines[0])
	}
	network, err := directory.LoadNetwork(got.Network)
	if err != nil || !network.Test || len(network.Trackers) != 2 || len(network.Entries) != 4 || network.Entries[0].Addr.String() != got.Relays[0].Addr {
		t.Errorf("the network file says %+v, %v", network, err)
	}
	var pids []int
	for _, m := range got.Trackers {
		pids = append(pids, m.PID)
	}
	for _, m := range got.Relays {
		pids = append(pids, m.PID)
	}
	for _, m := range got.Sidecars {
		pids = append(pids, m.PID)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d is left: %v", pid, err)
		}
	}
	if _, err := net.Dial("tcp", got.Relays[0].Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the forwarder at %s is left: %v", got.Relays[0].Addr, err)
	}
}

func TestANetworkThatIsNotReadyIsAnErrorThatSaysWhy(t *testing.T) {
	c := config(t)
	c.SidecarFlags = []string{"--never"}
	for c.Ready = 3 * time.Second; ; c.Ready *= 2 { // a busy machine may take longer to get so far
		err := Run(t.Context(), c, described(func(line []byte) { t.Errorf("printed %q", line) }), true, os.Stderr)
		if err == nil || !strings.Contains(err.Error(), "not ready within "+c.Ready.String()) {
			t.Fatalf("Run = %v, want that it was not ready in time", err)
		}
		if strings.Contains(err.Error(), "it never will be") {
			return
		}
		if c.Ready > time.Minute {
			t.Fatalf("Run = %v, want why it was not ready", err)
		}
	}
}

func TestAProgramThatEndsEarlyIsAnErrorWithItsLastWords(t *testing.T) {
	c := config(t)
	c.SidecarFlags = []string{"--unheard-of"}
	_, err := Start(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "unheard-of") {
		t.Errorf("Start = %v, want the sidecar's words", err)
	}
}

func TestWhatCannotBeIsRefusedAtOnce(t *testing.T) {
	good := Config{Trackers: 1, Relays: 4, Sidecars: 2}
	if err := good.Check(); err != nil {
		t.Errorf("Check() = %v for default hops over four relays", err)
	}
	for name, tt := range map[string]struct {
		c    Config
		want error
	}{
		"three for the default hops":  {Config{Trackers: 1, Relays: 3, Sidecars: 1}, ErrTooFewRelays},
		"three relays for three hops": {Config{Trackers: 1, Relays: 3, Sidecars: 2, Hops: []int{1, 3}}, ErrTooFewRelays},
		"no tracker":                  {Config{Relays: 4}, ErrUsage},
		"too many":                    {Config{Trackers: 1, Relays: 1000}, ErrUsage},
		"hops below zero":             {Config{Trackers: 1, Relays: 4, Sidecars: 1, Hops: []int{-1}}, ErrUsage},
		"a delay below zero":          {Config{Trackers: 1, Relays: 4, LinkDelay: -1}, ErrUsage},
	} {
		if err := tt.c.Check(); !errors.Is(err, tt.want) {
			t.Errorf("%s: Check() = %v, want %v", name, err, tt.want)
		}
	}
}

func TestTheLastHopsHoldForTheRest(t *testing.T) {
	c := Config{Hops: []int{2, 3}}
	for i, want := range []int{2, 3, 3} {
		if got, set := c.hops(i); got != want || !set {
			t.Errorf("hops(%d) = %d, %t, want %d", i, got, set, want)
		}
	}
}
