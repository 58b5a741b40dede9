package peers

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestANameHasOneAddressAndBack(t *testing.T) {
	var n Names
	if name, ok := n.Name(netip.MustParseAddr("10.65.1.1")); ok {
		t.Errorf("an address that was never given is %q", name)
	}
	seen := make(map[netip.Addr]bool)
	for i := range MaxNames {
		name := fmt.Sprint(i)
		a := n.Addr(name)
		if got, ok := n.Name(a); !NameRange.Contains(a) || Is(a) || seen[a] || !ok || got != name || n.Addr(name) != a {
			t.Fatalf("%s is %v, which is %q", name, a, got)
		}
		seen[a] = true
	}
	if a := n.Addr("one more"); a.IsValid() {
		t.Errorf("one of %d names is %v", MaxNames+1, a)
	}
	if !n.Addr("0").IsValid() {
		t.Error("a name has lost its address")
	}
}
