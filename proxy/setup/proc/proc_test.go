package proc

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func (s Socket) describe() string {
	out := map[bool]string{true: "udp ", false: "tcp "}[s.UDP] + s.Local.String()
	if s.Listening {
		out += " listens"
	}
	if s.Remote.IsValid() {
		out += " to " + s.Remote.String()
	}
	return out + fmt.Sprintf(" inode %d", s.inode)
}

// vectors returns the lines of testdata/sockets.txt with their answers.
func vectors(t testing.TB) (lines, wants []string) {
	b, err := os.ReadFile("testdata/sockets.txt")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSpace(l)
		if w, ok := strings.CutPrefix(l, "want: "); ok {
			wants = append(wants, w)
		} else if l != "" && l[0] != '#' {
			lines = append(lines, l)
		}
	}
	if len(lines) != len(wants) || len(lines) == 0 {
		t.Fatalf("%d lines with %d answers", len(lines), len(wants))
	}
	return lines, wants
}

func FuzzParseSockets(f *testing.F) {
	lines, _ := vectors(f)
	for _, l := range lines {
		_, row, _ := strings.Cut(l, " ")
		f.Add([]byte(header + row))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := ParseSockets(b, false)
		if err == nil && len(all) > len(b)/columnInode {
			t.Errorf("%d sockets from %d bytes", len(all), len(b))
		}
		ParseGroups(b, b)
		ParseInterfaces(b)
		ParseIPv6(b)
	})
}

func TestInterfacesAreRead(t *testing.T) {
	dev := "Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes\n" +
		"    lo:  4032      48    0    0    0     0          0         0     4032\n" +
		"shoal0: 1 2 3\n"
	if got := ParseInterfaces([]byte(dev)); !slices.Equal(got, []string{"lo", "shoal0"}) {
		t.Errorf("got %v", got)
	}
}

func TestOnlyAddressesOfTheInternetCountAsIPv6(t *testing.T) {
	for table, want := range map[string]bool{
		"": false,
		"00000000000000000000000000000001 01 80 10 80       lo\n": false,
		"fe80000000000000022155fffe7c181c 02 40 20 80     eth0\n": false,
		"fd000000000000000000000000000002 02 40 00 80     eth0\n": false,
		"20010db8000000000000000000000002 02 40 00 80     eth0\n": true,
		"nonsense\n": false,
	} {
		if got := ParseIPv6([]byte(table)); got != want {
			t.Errorf("%q: got %v, want %v", table, got, want)
		}
	}
}
