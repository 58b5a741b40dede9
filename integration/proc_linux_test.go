package integration

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// listens is the state of a TCP socket that listens, in /proc/net/tcp.
const listens = "0A"

// bound returns the local addresses of a process's sockets of a protocol, tcp
// or udp, that are in a state; "" means any.
func bound(t *testing.T, pid int, protocol, state string) []netip.AddrPort {
	t.Helper()
	own := sockets(t, pid)
	var all []netip.AddrPort
	for _, table := range []string{protocol, protocol + "6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			// sl, local_address, rem_address, st, …, inode in the tenth column.
			fields := strings.Fields(line)
			if len(fields) < 10 || !own["socket:["+fields[9]+"]"] || state != "" && fields[3] != state {
				continue
			}
			at, err := parseSocket(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, at)
		}
	}
	return all
}

// sockets returns the names of the sockets that a process holds.
func sockets(t *testing.T, pid int) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := make(map[string]bool)
	for _, f := range files {
		if name, err := os.Readlink(f); err == nil && strings.HasPrefix(name, "socket:") {
			own[name] = true
		}
	}
	return own
}

// parseSocket reads the form of /proc/net/tcp: words of four bytes, backwards.
func parseSocket(s string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("socket %q", s)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

func addr(t *testing.T, at string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddrPort(at)
	if err != nil {
		t.Fatal(err)
	}
	return a.Addr()
}
