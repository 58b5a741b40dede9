package integration

import (
	"bufio"
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

// listening returns the TCP addresses that a process listens on.
func listening(t *testing.T, pid int) []netip.AddrPort {
	t.Helper()
	own := sockets(t, pid)
	var all []netip.AddrPort
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			// sl, local_address, rem_address, st (0A: listening), …, inode in the tenth column.
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[3] != "0A" || !own["socket:["+fields[9]+"]"] {
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
