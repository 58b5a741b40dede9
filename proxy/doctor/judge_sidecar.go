package doctor

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/setup"
	"github.com/shoal-p2p/shoal/proxy/status"
)

// JudgeSidecar returns what is to say of the sidecar.
func JudgeSidecar(s Sidecar) []Finding {
	j := &judge{}
	switch {
	case s.Answer == setup.Nobody:
		j.say(Fault, "sidecar", fmt.Sprintf("nothing listens at %v, so clients that are set to it reach nobody", s.SOCKS), s.elsewhere("start it: shoal proxy --network FILE"))
	case s.Answer == setup.Silence:
		j.say(Fault, "sidecar", fmt.Sprintf("%v can't be reached, so clients that are set to it reach nobody", s.SOCKS), s.elsewhere("start it: shoal proxy --network FILE"))
	case !s.Answer.SOCKS5():
		j.say(Fault, "sidecar", fmt.Sprintf("%s listens at %v and does not answer as a SOCKS5 proxy, so it is not Shoal, or it hangs", s.holder(), s.SOCKS), s.elsewhere("stop it and start shoal proxy; or start that with --socks 127.0.0.1:1090, and set the client to the same"))
	case !s.Page:
		j.say(Unknown, "sidecar", fmt.Sprintf("%s speaks SOCKS5 at %v, but no status page of Shoal's answers: another program's proxy would carry everything outside", s.holder(), s.SOCKS),
			s.elsewhere("name the sidecar's addresses with --socks and --status, as shoal proxy printed them"))
	case !s.Ready:
		j.say(Fault, "sidecar", "it is not ready: "+s.Why, s.Advice)
	}
	for _, r := range wrongSettings {
		if n := s.Refused[r.String()]; n > 0 {
			j.say(Note, "refused", fmt.Sprintf("since it started, %d times: %s", n, r.Text()), "")
		}
	}
	return j.all
}

// wrongSettings are the refusals that a setting of a client's ends: of one that
// can't be seen from here, or of before it was changed.
var wrongSettings = []status.Reason{status.Password, status.NoPassword, status.SOCKS4, status.HTTPProxy, status.NotProxied, status.Certificate, status.System}

func (s Sidecar) holder() string {
	if s.Holder == "" {
		return "something"
	}
	return s.Holder
}

// elsewhere returns what to do when sidecars listen at other addresses, else
// what is given.
func (s Sidecar) elsewhere(otherwise string) string {
	if len(s.Others) == 0 {
		return otherwise
	}
	var all []string
	for _, a := range s.Others {
		all = append(all, a.String())
	}
	return fmt.Sprintf("a sidecar listens at %s: set the client to that, and look again with --socks and --status", strings.Join(all, ", "))
}

// User is a client that the sidecar serves, with the name it gives there.
type User struct {
	Client, Name string
}

// JudgeUsers returns what is to say of several clients that share a sidecar.
func JudgeUsers(socks netip.AddrPort, users []User) []Finding {
	j := &judge{}
	byName := make(map[string][]string)
	for _, u := range users {
		byName[u.Name] = append(byName[u.Name], u.Client)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		clients := byName[name]
		if len(clients) < 2 {
			continue
		}
		list := strings.Join(clients, ", ")
		const mend = "give each a name of its own: shoal setup CLIENT --socks-user NAME"
		if name == "" {
			j.say(Note, "shared", fmt.Sprintf("%d clients use %v without a user name (%s): the sidecar tells them apart by their processes, which only works on Linux and for the same user", len(clients), socks, list), mend)
			continue
		}
		j.say(Fault, "shared", fmt.Sprintf("%d clients use %v with the same user name (%s): the sidecar takes them for one, and gives each one's peers to the other", len(clients), socks, list), mend)
	}
	return j.all
}
