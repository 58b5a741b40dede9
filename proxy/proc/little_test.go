//go:build 386 || amd64 || arm || arm64 || loong64 || mipsle || mips64le || ppc64le || riscv64

package proc

import (
	"net/netip"
	"slices"
	"testing"
)

func TestGroupsAreRead(t *testing.T) {
	igmp := "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n" +
		"1\tlo        :     2      V3\n" +
		"\t\t\t\t8F98C0EF     1 0:00000000\t\t0\n" +
		"\t\t\t\t010000E0     1 0:00000000\t\t0\n"
	igmp6 := "2    eth0            ff1500000000000000000000efc0988f     2 00000004 0\n"
	got := ParseGroups([]byte(igmp), []byte(igmp6))
	want := []netip.Addr{netip.MustParseAddr("239.192.152.143"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff15::efc0:988f")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
