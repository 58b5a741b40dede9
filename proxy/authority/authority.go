// Package authority is the certificate authority of one sidecar: it lets the
// sidecar answer HTTPS trackers to a client that trusts it. It signs for servers
// only, and makes no further authority. Its certificate names no host, so that a
// client reads it once, and so that no file tells which trackers are in use.
// Who trusts it must therefore be the torrent client and nothing else: it never
// belongs in a system's store.
// Not here: what is said inside TLS (package announce), who is made to trust the
// authority (packages proxy/netns and proxy/setup).
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
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
)

// The lifetimes and limits.
const (
	Lifetime  = 365 * 24 * time.Hour // of an authority that is kept in a folder
	renewAt   = 30 * 24 * time.Hour  // left of it when Open makes a new one
	unkept    = 10 * Lifetime        // of one that ends with its process
	leafLife  = 7 * 24 * time.Hour
	leafRenew = 24 * time.Hour // from either end of a leaf's time: clocks are set
	maxLeaves = 256            // kept ready
)

// begin is before any time that a clock may be set back to.
var begin = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// ErrHost means that a name can't be a tracker's here: no host name, or one
// under which strangers' names live, like com.
var ErrHost = errors.New("authority: not the name of a tracker")

// Authority signs certificates. Safe for concurrent use.
type Authority struct {
	dir     string            // "" for one that is kept nowhere
	leafKey *ecdsa.PrivateKey // of every leaf; never stored

	mu     sync.Mutex
	key    *ecdsa.PrivateKey           // guarded by mu
	cert   *x509.Certificate           // guarded by mu
	leaves map[string]*tls.Certificate // guarded by mu; by host
}

// New returns an authority of this process alone: its key is in memory, and
// what it has signed is worth nothing once the process is gone.
func New() (*Authority, error) {
	a, err := empty("")
	if err != nil {
		return nil, err
	}
	return a, a.renew(unkept)
}

// Open returns the authority that is kept in dir. It makes one if there is none
// or if the one there is about to expire: clients must then read Path again.
// A damaged file is replaced. One that others could have read is an error.
func Open(dir string) (*Authority, error) {
	a, err := empty(dir)
	if err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	if a.cert == nil || time.Until(a.cert.NotAfter) < renewAt {
		err = a.renew(Lifetime)
	} else {
		err = a.export(a.cert)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

func empty(dir string) (*Authority, error) {
	leafKey, err := newKey()
	if err != nil {
		return nil, err
	}
	return &Authority{dir: dir, leafKey: leafKey, leaves: make(map[string]*tls.Certificate)}, nil
}

// Expires returns when the authority's certificate ends.
func (a *Authority) Expires() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cert.NotAfter
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

// isName reports whether s is a DNS name of two labels or more, in lower case.
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

// renew makes a new key and a certificate for it, and stores both if the
// authority is kept. The caller holds mu, or has the only reference.
func (a *Authority) renew(life time.Duration) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Shoal, for one torrent client only"},
		NotBefore:             begin,
		NotAfter:              time.Now().Add(life),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return fmt.Errorf("authority: make certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("authority: read own certificate: %w", err)
	}
	if err := a.save(key, cert); err != nil {
		return err
	}
	clear(a.leaves)
	a.key, a.cert = key, cert
	return nil
}

// leaf returns the certificate of a host.
func (a *Authority) leaf(host string) (*tls.Certificate, error) {
	host, err := clean(host)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if !now.Before(a.cert.NotAfter) {
		if err := a.renew(Lifetime); err != nil {
			return nil, err
		}
	}
	if c := a.leaves[host]; c != nil && c.Leaf.NotAfter.Sub(now) > leafRenew && !now.Before(c.Leaf.NotBefore) {
		return c, nil
	}
	c, err := a.sign(host, now)
	if err != nil {
		return nil, err
	}
	if len(a.leaves) >= maxLeaves {
		clear(a.leaves)
	}
	a.leaves[host] = c
	return c, nil
}

func (a *Authority) sign(host string, now time.Time) (*tls.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: serial(),
		NotBefore:    now.Add(-leafRenew),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
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
