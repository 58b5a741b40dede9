// Package authority is the certificate authority of one computer: it lets the
// sidecar answer HTTPS trackers to a client that was told to trust it. What it
// signs is worth nothing elsewhere: its certificate names the hosts of the
// trackers in use and holds for no other, for servers only, for 90 days. It is
// never installed in a system's store.
// Not here: what is said inside TLS (package announce), which hosts are allowed
// (package proxy).
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
)

// The lifetimes and limits.
const (
	Lifetime  = 90 * 24 * time.Hour // of the authority's key
	renewAt   = 14 * 24 * time.Hour // left of it when Open makes a new one
	leafLife  = 7 * 24 * time.Hour
	leafRenew = 24 * time.Hour
	backdate  = time.Hour // for clocks that lag
	MaxHosts  = 256       // tracker hosts
)

// ErrHost means that a name can't be a tracker's here: no host name, or one
// under which strangers' names live, like com.
var ErrHost = errors.New("authority: not a tracker host that can be allowed")

// Authority signs certificates for the allowed hosts. Safe for concurrent use.
type Authority struct {
	dir     string
	leafKey *ecdsa.PrivateKey // of every leaf; never stored

	mu     sync.Mutex
	key    *ecdsa.PrivateKey           // guarded by mu
	cert   *x509.Certificate           // guarded by mu; its constraints are the allowed hosts
	leaves map[string]*tls.Certificate // guarded by mu; by host, all of them allowed
}

// Open returns the authority that is kept in dir, made when there is none or
// the one there is about to expire: then clients must be told of the new one.
// A file that can't be read, or that others could read, is an error.
func Open(dir string) (*Authority, error) {
	leafKey, err := newKey()
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, leafKey: leafKey, leaves: make(map[string]*tls.Certificate)}
	if err := a.load(); err != nil {
		return nil, err
	}
	switch {
	case a.cert == nil:
		err = a.renew(nil)
	case time.Until(a.cert.NotAfter) < renewAt:
		err = a.renew(hostsOf(a.cert))
	default:
		err = a.export()
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Expires returns when the authority's certificate ends.
func (a *Authority) Expires() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cert.NotAfter
}

// Allow makes host, a tracker's name or address, one that the authority signs
// for, in place of the oldest name where MaxHosts are already. The file at Path
// is then a new one; a client that read the old one does not take the host's
// certificate before it reads the new.
func (a *Authority) Allow(host string) error {
	host, err := clean(host)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	hosts := hostsOf(a.cert)
	if slices.Contains(hosts, host) {
		return nil
	}
	if len(hosts) >= MaxHosts {
		delete(a.leaves, hosts[0])
		hosts = hosts[1:]
	}
	return a.issue(a.key, append(hosts, host), a.cert.NotBefore, a.cert.NotAfter)
}

// Forget takes back what Allow did: the host turned out to be no tracker's.
func (a *Authority) Forget(host string) error {
	host, err := clean(host)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	hosts := hostsOf(a.cert)
	i := slices.Index(hosts, host)
	if i < 0 {
		return nil
	}
	delete(a.leaves, host)
	return a.issue(a.key, slices.Delete(hosts, i, i+1), a.cert.NotBefore, a.cert.NotAfter)
}

// Allowed says if the authority signs for host.
func (a *Authority) Allowed(host string) bool {
	host, err := clean(host)
	if err != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(hostsOf(a.cert), host)
}

// clean returns the one form of a host: an address, or a name in lower case.
func clean(host string) (string, error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") { // IPv6, as in a URL
		host = host[1 : len(host)-1]
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return "", fmt.Errorf("%w: an address with a zone", ErrHost)
		}
		return ip.Unmap().String(), nil
	}
	if !isName(host) {
		return "", fmt.Errorf("%w: no host name", ErrHost)
	}
	if suffix, _ := publicsuffix.PublicSuffix(host); suffix == host {
		return "", fmt.Errorf("%w: a name that others register names under", ErrHost)
	}
	return host, nil
}

// isName says if s is a DNS name of two labels or more, in lower case.
func isName(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	top := labels[len(labels)-1]
	return len(s) <= 253 && len(labels) > 1 && strings.Trim(top, "0123456789") != ""
}

// hostsOf returns the hosts that an authority's certificate holds for.
func hostsOf(cert *x509.Certificate) (hosts []string) {
	for _, name := range cert.PermittedDNSDomains {
		if name != nowhere {
			hosts = append(hosts, name)
		}
	}
	for _, ip := range cert.PermittedIPRanges {
		hosts = append(hosts, ip.IP.String())
	}
	return hosts
}

// nowhere stands for no host: a certificate without constraints holds for all.
const nowhere = "shoal.invalid"

// renew makes a new key and a certificate for hosts. The caller holds mu, or is Open.
func (a *Authority) renew(hosts []string) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	now := time.Now()
	return a.issue(key, hosts, now.Add(-backdate), now.Add(Lifetime))
}

// issue makes and stores the authority's own certificate. A key's time is not
// prolonged by it. The caller holds mu, or is Open.
func (a *Authority) issue(key *ecdsa.PrivateKey, hosts []string, from, to time.Time) error {
	t := &x509.Certificate{
		SerialNumber:                serial(),
		Subject:                     pkix.Name{CommonName: "Shoal, for the trackers of this computer only"},
		NotBefore:                   from,
		NotAfter:                    to,
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
	}
	constrain(t, hosts)
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return fmt.Errorf("authority: make certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("authority: read own certificate: %w", err)
	}
	if err := store(a.dir, key, cert); err != nil {
		return err
	}
	if a.key != key {
		clear(a.leaves)
	}
	a.key, a.cert = key, cert
	return a.export()
}

// constrain makes t hold for hosts only. A kind of name without a permitted
// one must be excluded, or all of the kind would be allowed.
func constrain(t *x509.Certificate, hosts []string) {
	for _, h := range hosts {
		ip := net.ParseIP(h)
		if ip == nil {
			t.PermittedDNSDomains = append(t.PermittedDNSDomains, h)
			continue
		}
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
	}
	if len(t.PermittedDNSDomains) == 0 {
		t.PermittedDNSDomains = []string{nowhere}
	}
	if len(t.PermittedIPRanges) == 0 {
		t.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
}

// leaf returns the certificate of an allowed host.
func (a *Authority) leaf(host string) (*tls.Certificate, error) {
	host, err := clean(host)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains(hostsOf(a.cert), host) {
		return nil, ErrNotAllowed
	}
	now := time.Now()
	if !now.Before(a.cert.NotAfter) {
		if err := a.renew(hostsOf(a.cert)); err != nil {
			return nil, err
		}
	}
	if c := a.leaves[host]; c != nil && c.Leaf.NotAfter.Sub(now) > leafRenew {
		return c, nil
	}
	c, err := a.sign(host, now)
	if err != nil {
		return nil, err
	}
	a.leaves[host] = c
	return c, nil
}

func (a *Authority) sign(host string, now time.Time) (*tls.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: serial(),
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if t.NotBefore.Before(a.cert.NotBefore) {
		t.NotBefore = a.cert.NotBefore
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, a.leafKey.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("authority: make certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority: read own certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leafKey, Leaf: leaf}, nil
}

// newKey makes a key of the one kind that every client takes.
func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// serial returns 127 random bits: positive, within RFC 5280's 20 bytes.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}
