package netns

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

var known = netip.MustParseAddr("198.18.9.9")

func nameOf(name string) netip.Addr {
	if name == "tracker.example" {
		return known
	}
	return netip.Addr{}
}

func query(t testing.TB, name string, typ dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDNSAnswers(t *testing.T) {
	for _, c := range []struct {
		name  string
		typ   dnsmessage.Type
		rcode dnsmessage.RCode
		want  string
	}{
		{"tracker.example.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "198.18.9.9"},
		{"TRACKER.example.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "198.18.9.9"},
		{"other.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{".", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"localhost.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "127.0.0.1"},
		{"a.localhost.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "127.0.0.1"},
		{"tracker.example.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""},
		{"other.example.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""},
		{"tracker.example.", dnsmessage.TypeTXT, dnsmessage.RCodeSuccess, ""},
		{"tracker.example.", dnsmessage.Type(65), dnsmessage.RCodeSuccess, ""},
	} {
		var m dnsmessage.Message
		if err := m.Unpack(answerDNS(query(t, c.name, c.typ), nameOf)); err != nil {
			t.Fatalf("%s %v: %v", c.name, c.typ, err)
		}
		got := ""
		if len(m.Answers) == 1 {
			got = netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A).String()
		}
		if m.ID != 77 || !m.Response || m.RCode != c.rcode || got != c.want || len(m.Questions) != 1 || m.Questions[0].Name.String() != c.name {
			t.Errorf("%s %v: %v %q, want %v %q", c.name, c.typ, m.RCode, got, c.rcode, c.want)
		}
	}
}

func TestDNSRefusesWhatIsNoQuery(t *testing.T) {
	q := query(t, "tracker.example.", dnsmessage.TypeA)
	for i := range 12 {
		if a := answerDNS(q[:i], nameOf); a != nil {
			t.Errorf("answered %d bytes of a header", i)
		}
	}
	for i := 12; i < len(q); i++ {
		var m dnsmessage.Message
		if err := m.Unpack(answerDNS(q[:i], nameOf)); err != nil || m.RCode != dnsmessage.RCodeFormatError || len(m.Answers) != 0 {
			t.Errorf("%d of %d bytes: %v, %v", i, len(q), m.RCode, err)
		}
	}
	response := slices.Clone(q)
	response[2] |= 0x80
	if answerDNS(response, nameOf) != nil {
		t.Error("answered an answer")
	}
	two := slices.Clone(q)
	two[5] = 2
	two = append(two, q[12:]...)
	var m dnsmessage.Message
	if err := m.Unpack(answerDNS(two, nameOf)); err != nil || m.RCode != dnsmessage.RCodeFormatError {
		t.Errorf("two questions: %v, %v", m.RCode, err)
	}
	notify := slices.Clone(q)
	notify[2] |= 4 << 3
	if err := m.Unpack(answerDNS(notify, nameOf)); err != nil || m.RCode != dnsmessage.RCodeNotImplemented {
		t.Errorf("opcode 4: %v, %v", m.RCode, err)
	}
}

func FuzzAnswerDNS(f *testing.F) {
	f.Add(query(f, "tracker.example.", dnsmessage.TypeA))
	f.Add(query(f, "x.localhost.", dnsmessage.TypeAAAA))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		a := answerDNS(b, nameOf)
		if a == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(a); err != nil {
			t.Errorf("answer to %x: %v", b, err)
		}
		if len(a) > 512 {
			t.Errorf("answer of %d bytes", len(a))
		}
	})
}
