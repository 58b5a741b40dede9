package netns

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsPort = 53

	// dnsTTL is how long clients may keep an answer, seconds. What a name
	// stands for doesn't change while the command runs.
	dnsTTL = 600
)

// answerDNS returns the answer to a DNS query, or nil for what is none. An A
// query is answered with what name says, every other type with an empty
// answer, so that clients go on with IPv4 at once instead of waiting.
func answerDNS(query []byte, name func(string) netip.Addr) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	reply := dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true}
	q, err := p.Question()
	_, more := p.Question()
	var a netip.Addr
	switch {
	case h.OpCode != 0:
		reply.RCode = dnsmessage.RCodeNotImplemented
		return packDNS(reply, nil, a)
	case err != nil || more != dnsmessage.ErrSectionDone:
		reply.RCode = dnsmessage.RCodeFormatError
		return packDNS(reply, nil, a)
	}
	if q.Type == dnsmessage.TypeA && q.Class == dnsmessage.ClassINET {
		if a = lookup(q.Name.String(), name).Unmap(); !a.Is4() {
			reply.RCode = dnsmessage.RCodeNameError
		}
	}
	return packDNS(reply, &q, a)
}

// lookup asks name, except for what every resolver answers itself (RFC 6761).
func lookup(fqdn string, name func(string) netip.Addr) netip.Addr {
	n := strings.ToLower(strings.TrimSuffix(fqdn, "."))
	switch {
	case n == "localhost" || strings.HasSuffix(n, ".localhost"):
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case n == "" || strings.ContainsFunc(n, func(r rune) bool { return r <= ' ' || r > '~' }):
		return netip.Addr{}
	}
	return name(n)
}

// packDNS writes an answer; a invalid leaves it empty.
func packDNS(h dnsmessage.Header, q *dnsmessage.Question, a netip.Addr) []byte {
	m := dnsmessage.Message{Header: h}
	if q != nil {
		m.Questions = []dnsmessage.Question{*q}
	}
	if a.Is4() {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: dnsTTL},
			Body:   &dnsmessage.AResource{A: a.As4()},
		}}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
