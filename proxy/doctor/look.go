package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	Client   setup.Client
	Findings []Finding
}

// Report is all that a look found.
type Report struct {
	Patients []Patient
	Sidecar  []Finding
}

// Clean says if there is nothing to close.
func (r Report) Clean() bool {
	return Clean(r.Sidecar) && !slices.ContainsFunc(r.Patients, func(p Patient) bool { return !Clean(p.Findings) })
}

// Leaks returns how many there are.
func (r Report) Leaks() (n int) {
	all := r.Sidecar
	for _, p := range r.Patients {
		all = slices.Concat(all, p.Findings)
	}
	for _, f := range all {
		if f.Level == Leak {
			n++
		}
	}
	return n
}

// ErrNobody means that no client runs and none was named.
var ErrNobody = errors.New("doctor: no torrent client that Shoal knows runs here: name one with --client to have its settings looked at")

// Look looks at the clients and the sidecar.
func Look(ctx context.Context, c Config) (Report, error) {
	var r Report
	all, err := clients(c)
	if err != nil {
		return r, err
	}
	sandboxed := 0
	for _, i := range all {
		f := look(ctx, i, c.SOCKS)
		if f.Sandbox {
			sandboxed++
		}
		r.Patients = append(r.Patients, Patient{i.Client, Judge(f)})
	}
	if sandboxed < len(all) { // shoal run is a sidecar of its own
		r.Sidecar = JudgeSidecar(sidecar(ctx, c))
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
	for _, name := range c.Clients {
		if slices.ContainsFunc(all, func(i setup.Instance) bool { return i.Client == name }) {
			continue
		}
		i, err := setup.Find(name, setup.Access{})
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	if len(all) == 0 {
		return nil, ErrNobody
	}
	return all, nil
}

// look collects the facts about one client.
func look(ctx context.Context, i setup.Instance, socks netip.AddrPort) Facts {
	f := Facts{Client: i.Client, SOCKS: socks, Running: i.Process != nil, Sight: Nothing}
	var err error
	f.Profile, f.Live, err = i.Read(ctx)
	f.Known = err == nil
	where := proc.Self()
	if i.Process != nil {
		where = *i.Process
		f.Sandbox = inSandbox(where)
		f.Sockets, err = where.Sockets()
		switch {
		case err == nil:
			f.Sight = Seen
		case errors.Is(err, fs.ErrPermission):
			f.Sight = Denied
		}
	}
	f.Groups, f.IPv6 = where.Groups(), where.IPv6()
	return f
}

// The interfaces of a network that shoal run made: there are no others.
var sandbox = []string{"lo", "shoal0", "shoal1"}

// inSandbox says if a process is in a network that shoal run made.
func inSandbox(p proc.Process) bool {
	if p.SameNetwork() {
		return false
	}
	all := p.Interfaces()
	return slices.Contains(all, "shoal0") && !slices.ContainsFunc(all, func(name string) bool { return !slices.Contains(sandbox, name) })
}

const (
	sidecarTimeout = 5 * time.Second
	maxStatus      = 1 << 20 // bytes of the status page
	maxWhy         = 300     // characters of it that are shown
)

// sidecar collects the facts about the sidecar.
func sidecar(ctx context.Context, c Config) Sidecar {
	ctx, cancel := context.WithTimeout(ctx, sidecarTimeout)
	defer cancel()
	s := Sidecar{SOCKS: c.SOCKS, Answers: speaksSOCKS(ctx, c.SOCKS)}
	st, err := readStatus(ctx, c.Status)
	if err != nil {
		return s
	}
	s.Page, s.Ready, s.Why = true, st.Ready, plain(st.Why)
	return s
}

// speaksSOCKS says if SOCKS5 is spoken at an address. It asks for nothing.
func speaksSOCKS(ctx context.Context, at netip.AddrPort) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// Version 5 with two ways to log in: none, and by password.
	if _, err := conn.Write([]byte{5, 2, 0, 2}); err != nil {
		return false
	}
	var answer [2]byte
	_, err = io.ReadFull(conn, answer[:])
	return err == nil && answer[0] == 5
}

func readStatus(ctx context.Context, url string) (st status.Status, err error) {
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
