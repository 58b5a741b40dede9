package integration

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

// TestShellsLeaveATrackerLinkWhole: unquoted, with all the entry relays that a
// link may have and addresses of IPv6.
func TestShellsLeaveATrackerLinkWhole(t *testing.T) {
	l := directory.Link{Tracker: directory.Tracker{Key: [32]byte{1}, Addr: netip.MustParseAddrPort("[2a00:1::1]:9000")}}
	for i := range directory.MaxLinkEntries {
		l.Entries = append(l.Entries, directory.EntryRelay{ID: onion.ID{byte(2 + i)}, Addr: netip.AddrPortFrom(netip.MustParseAddr("2a00:2::1"), uint16(9001+i))})
	}
	link := l.String()
	for _, shell := range [][]string{{"sh", "-c"}, {"bash", "-c"}, {"bash", "-ic"}, {"zsh", "-c"}, {"zsh", "-o", "extendedglob", "-c"}, {"fish", "-c"}} {
		t.Run(strings.Join(shell, " "), func(t *testing.T) {
			line := "printf '<%s>' --tracker " + link + " --tracker=" + link + " " + link
			out, err := exec.Command(shell[0], append(shell[1:], line)...).Output()
			want := "<--tracker><" + link + "><--tracker=" + link + "><" + link + ">"
			if err != nil || string(out) != want {
				t.Errorf("%v: %s, want %s", err, out, want)
			}
		})
	}
	got := command(t, deadline(t), "bash", "-c", shoal()+" network --tracker "+link)
	if n, err := directory.ParseNetwork([]byte(got.out)); err != nil || len(n.Entries) != directory.MaxLinkEntries {
		t.Errorf("shoal network of it: %+v, %v", got, err)
	}
}
