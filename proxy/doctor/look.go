package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/proxy/netns"
	"github.com/shoal-p2p/shoal/proxy/proc"
	"github.com/shoal-p2p/shoal/proxy/setup"
	"github.com/shoal-p2p/shoal/proxy/status"
)

// Config is where to look.
type Config struct {
	SOCKS   netip.AddrPort // the sidecar's
	Status  string         // URL of its status page
	Clients []setup.Client // none: those that run
	Access  setup.Access   // used with one client
}

// Patient is a client with what is to say of it.
type Patient struct {
	setup.Instance
	Findings []Finding
}

// Report is all that a look found.
type Report struct {
	Patients []Patient
	Sidecar  []Finding
	Looked   bool // at the sidecar at all
}

// Clean reports whether there is nothing to do.
func (r Report) Clean() bool {
	return len(r.Patients) > 0 && Clean(r.Sidecar) && !slices.ContainsFunc(r.Patients, func(p Patient) bool { return !Clean(p.Findings) })
}

// Count returns how many findings of a level there are.
func (r Report) Count(l Level) (n int) {
	all := r.Sidecar
	for _, p := range r.Patients {
		all = slices.Concat(all, p.Findings)
	}
	for _, f := range all {
		if f.Level == l {
			n++
		}
	}
	return n
}

// Look looks at the clients and the sidecar.
func Look(ctx context.Context, c Config) (Report, error) {
	var r Report
	all, err := clients(c)
	if err != nil {
		return r, err
	}
	others := otherSidecars(c.SOCKS)
	sandboxed := 0
	var users []User
	for _, i := range all {
		f := look(ctx, i, c.SOCKS, others)
		if f.Sandbox {
			sandboxed++
		} else if at, ok := proxyAt(f.Profile); ok && at == c.SOCKS && f.Running {
			users = append(users, User{fmt.Sprintf("%s, pid %d", i.Client.Title(), i.Process.PID), f.Profile.ProxyUser})
		}
		r.Patients = append(r.Patients, Patient{i, Judge(f)})
	}
	if sandboxed < len(all) || len(all) == 0 { // shoal run is a sidecar of its own
		r.Looked = true
		r.Sidecar = append(JudgeSidecar(sidecar(ctx, c, others)), JudgeUsers(c.SOCKS, users)...)
	}
	return r, nil
}

// clients returns those that run, and of those that are named and do not run
// their settings.
func clients(c Config) ([]setup.Instance, error) {
	if c.Access != (setup.Access{}) && len(c.Clients) == 1 {
		i, err := setup.Find(c.Clients[0], c.Access)
		return []setup.Instance{i}, err
	}
	all, err := setup.Running(c.Clients...)
	if err != nil {
		return nil, fmt.Errorf("doctor: which programs run here: %w", err)
	}
	for _, named := range c.Clients {
		if slices.ContainsFunc(all, func(i setup.Instance) bool { return i.Client == named }) {
			continue
		}
		i, err := setup.Find(named, setup.Access{})
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// otherSidecars returns the sidecars on this computer, without the one at socks.
func otherSidecars(socks netip.AddrPort) []setup.Sidecar {
	return slices.DeleteFunc(setup.Sidecars(), func(s setup.Sidecar) bool { return slices.Contains(s.Listens, socks) })
}

// proxies returns where sidecars have their SOCKS proxies. They listen for their
// status pages too, which leave a greeting of SOCKS5 unanswered for long.
func proxies(ctx context.Context, sidecars []setup.Sidecar) []netip.AddrPort {
	found := make([][]netip.AddrPort, len(sidecars))
	var wg sync.WaitGroup
	for i, s := range sidecars {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var mu sync.Mutex
		for _, at := range s.Listens {
			wg.Go(func() {
				if setup.Look(ctx, at).SOCKS5() {
					mu.Lock()
					defer mu.Unlock()
					found[i] = append(found[i], at)
					cancel() // a sidecar has one
				}
			})
		}
	}
	wg.Wait()
	return slices.Concat(found...)
}

// look collects the facts about one client.
func look(ctx context.Context, i setup.Instance, socks netip.AddrPort, others []setup.Sidecar) Facts {
	f := Facts{Client: i.Client, SOCKS: socks, Running: i.Process != nil, Sight: Nothing, Run: i.RunCommand()}
	var err error
	f.Profile, f.Live, err = i.Read(ctx)
	f.Known = err == nil
	where := proc.Self()
	if i.Process != nil {
		where = *i.Process
		if f.Sandbox = inSandbox(where); f.Sandbox {
			f.Own = own(where)
		}
		f.Sockets, err = where.Sockets()
		switch {
		case err == nil:
			f.Sight = Seen
		case errors.Is(err, fs.ErrPermission):
			f.Sight = Denied
		}
	}
	f.Groups, f.IPv6 = where.Groups(), where.IPv6()
	// A password goes where the client itself sends it, and only on this computer.
	if at, ok := proxyAt(f.Profile); ok && !f.Sandbox && f.Profile.Proxy == "socks5" && (at == socks || at.Addr().IsLoopback()) {
		f.ProxyAnswer = setup.Knock(ctx, at, f.Profile.ProxyUser, f.Profile.ProxyPassword)
		f.OtherProxy = f.ProxyAnswer.SOCKS5() && slices.ContainsFunc(others, func(s setup.Sidecar) bool { return slices.Contains(s.Listens, at) })
	}
	return f
}

// inSandbox reports whether a process is in a network that shoal run made. A
// process of shoal run's is in there too.
func inSandbox(p proc.Process) bool {
	if p.SameNetwork() {
		return false
	}
	all, err := proc.List()
	return err == nil && slices.ContainsFunc(all, func(q proc.Process) bool { return q.Args[0] == netns.Supervisor && q.SharesNetwork(p) })
}

// own returns the names and addresses of a process's network interfaces.
func own(p proc.Process) []string {
	all := p.Interfaces()
	for _, a := range p.Local() {
		all = append(all, a.String())
	}
	return all
}

const (
	pageTimeout = 5 * time.Second
	maxStatus   = 1 << 20 // bytes of the status page
	maxWhy      = 300     // characters of it that are shown
)

// sidecar collects the facts about the sidecar. Others are where further ones
// listen.
func sidecar(ctx context.Context, c Config, others []setup.Sidecar) Sidecar {
	s := Sidecar{SOCKS: c.SOCKS}
	var wg sync.WaitGroup
	wg.Go(func() { s.Answer = setup.Look(ctx, c.SOCKS) })
	if st, err := readStatus(ctx, c.Status); err == nil {
		s.Page, s.Ready, s.Why, s.Advice = true, st.Ready, plain(st.Why), plain(st.Advice)
		s.Refused = st.Refused
	}
	wg.Wait()
	if !s.Answer.SOCKS5() || !s.Page {
		s.Holder = setup.Holder(c.SOCKS)
		s.Others = proxies(ctx, others)
	}
	return s
}

func readStatus(ctx context.Context, url string) (st status.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/status.json", nil)
	if err != nil {
		return st, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // past every proxy
	resp, err := client.Do(r)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("doctor: the status page answers with %d", resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&st); err != nil {
		return st, err
	}
	if st.Circuits == nil { // Shoal's page always has a list
		return st, errors.New("doctor: a page that is not Shoal's")
	}
	return st, nil
}

// plain is a text as a terminal may see it.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxWhy {
		return string(r[:maxWhy]) + "…"
	}
	return s
}
