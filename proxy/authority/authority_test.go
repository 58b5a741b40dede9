package authority

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// open makes an authority that is kept in a folder.
func open(t testing.TB) *Authority {
	t.Helper()
	a, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pool is what a client trusts that was given the exported file.
func pool(t testing.TB, a *Authority) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(a.Path())
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b) {
		t.Fatalf("no certificate in %s", b)
	}
	return p
}

func verify(t testing.TB, a *Authority, leaf *x509.Certificate, host string, usage x509.ExtKeyUsage) error {
	t.Helper()
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool(t, a), KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: time.Now()})
	return err
}

func TestATrackersCertificateIsTrusted(t *testing.T) {
	a := open(t)
	roots := pool(t, a) // read once, before any tracker is known
	for _, h := range []string{"tracker.example.org", "a.b-c.example", "192.0.2.7", "2001:db8::7", "Tracker.Example.ORG."} {
		c, err := a.leaf(h)
		if err != nil {
			t.Fatal(err)
		}
		for usage, want := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageServerAuth: true, x509.ExtKeyUsageClientAuth: false, x509.ExtKeyUsageCodeSigning: false} {
			_, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: strings.TrimSuffix(h, "."), Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
			if (err == nil) != want {
				t.Errorf("%s, usage %v: %v, want it to be good: %v", h, usage, err, want)
			}
		}
		if again, _ := a.leaf(h); again != c {
			t.Errorf("%s: signed twice", h)
		}
		if c.Leaf.IsCA || len(c.Leaf.DNSNames)+len(c.Leaf.IPAddresses) != 1 {
			t.Errorf("%s: %v %v", h, c.Leaf.DNSNames, c.Leaf.IPAddresses)
		}
	}
}

// A client reads the file once, and the file tells nothing to somebody who finds it later.
func TestNoFileTellsWhichTrackersAreInUse(t *testing.T) {
	a := open(t)
	read := func() (all []byte) {
		for _, name := range []string{secretFile, publicFile} {
			b, err := os.ReadFile(filepath.Join(a.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	}
	before := read()
	for _, h := range []string{"tracker.example.org", "192.0.2.7"} {
		if _, err := a.leaf(h); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read(), before) {
		t.Error("the files have changed")
	}
}

func TestAnAuthorityOfOneProcessIsKeptNowhere(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.leaf("tracker.example.org")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: "tracker.example.org", Roots: roots}); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it wrote %v", left)
	}
	b, err := New()
	if err != nil || bytes.Equal(a.PEM(), b.PEM()) {
		t.Errorf("the next process has the same one, %v", err)
	}
}

func TestTheKeyMakesNoFurtherAuthority(t *testing.T) {
	a := open(t)
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	between := &x509.Certificate{SerialNumber: serial(), NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, between, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	between, _ = x509.ParseCertificate(der)
	leaf := &x509.Certificate{SerialNumber: serial(), NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, DNSNames: []string{"tracker.example.org"}}
	der, err = x509.CreateCertificate(rand.Reader, leaf, between, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ = x509.ParseCertificate(der)
	middle := x509.NewCertPool()
	middle.AddCert(between)
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "tracker.example.org", Roots: pool(t, a), Intermediates: middle}); err == nil {
		t.Error("an authority below it is trusted")
	}
}

func TestNothingIsSignedForWhatIsNoTracker(t *testing.T) {
	a := open(t)
	for _, host := range []string{
		"", ".", "localhost", "com", "org.", "co.uk", "github.io", "a..b", ".example.org", "*.example.org", "tracker.example.org:443",
		"tracker example.org", "trackér.example.org", "tracker.example.org/", "fe80::1%lo", "1.2.3.4.5", "1.2.3", "[::1", strings.Repeat("a", 64) + ".example",
		strings.Repeat("a.", 127) + "example", "tracker.example.org\x00",
	} {
		if _, err := a.leaf(host); !errors.Is(err, ErrHost) {
			t.Errorf("leaf(%q): %v, want %v", host, err, ErrHost)
		}
	}
	for _, host := range []string{"tracker.example.org", "foo.github.io", "xn--bcher-kva.example", "t_1.example.org", "192.0.2.7", "[2001:db8::7]"} {
		if _, err := a.leaf(host); err != nil {
			t.Errorf("leaf(%q): %v", host, err)
		}
	}
}

func TestCertificatesThatAreKeptReadyAreBounded(t *testing.T) {
	a := open(t)
	for i := range maxLeaves + 3 {
		a.leaves[fmt.Sprintf("t%d.example.org", i)] = nil
	}
	if _, err := a.leaf("one.more.example"); err != nil || len(a.leaves) > maxLeaves {
		t.Errorf("%d are kept, %v, want %d at most", len(a.leaves), err, maxLeaves)
	}
}

func TestAnAuthorityIsKeptAndOthersCannotReadIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.leaf("tracker.example.org")
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(a.Path()) // the copy is made anew
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.PEM(), b.PEM()) || !a.Expires().Equal(b.Expires()) {
		t.Error("another authority came back")
	}
	if err := verify(t, b, c.Leaf, "tracker.example.org", x509.ExtKeyUsageServerAuth); err != nil {
		t.Errorf("an earlier certificate: %v", err)
	}
	if bytes.Contains(b.PEM(), []byte("KEY")) {
		t.Error("the exported file has a key in it")
	}
	if runtime.GOOS == "windows" {
		return
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, secretFile): 0o600, a.Path(): 0o644} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", filepath.Base(path), info.Mode().Perm(), err, want)
		}
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 2 {
		t.Errorf("%d files, want 2", len(left))
	}
}

// body returns what Open reads of an authority's file.
func body(t testing.TB, a *Authority) (b []byte) {
	t.Helper()
	found, err := secretKind.Load(filepath.Join(a.dir, secretFile), func(body []byte) error {
		b = bytes.Clone(body)
		return nil
	})
	if !found || err != nil {
		t.Fatalf("the authority's file: found %v, %v", found, err)
	}
	return b
}

func TestADamagedFileGivesANewAuthority(t *testing.T) {
	a, other := open(t), open(t)
	path := filepath.Join(a.dir, secretFile)
	good := body(t, a)
	cert, key := pem.Decode(good)
	_, otherKey := pem.Decode(body(t, other))
	for name, b := range map[string][]byte{
		"empty":       {},
		"garbage":     []byte("hello"),
		"no key":      pem.EncodeToMemory(cert),
		"no cert":     key,
		"two authors": append(pem.EncodeToMemory(cert), otherKey...),
		"bad cert":    append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), key...),
		"bad key":     append(pem.EncodeToMemory(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})...),
	} {
		if _, _, err := decode(b); err == nil {
			t.Errorf("%s: decoded", name)
		}
		if err := secretKind.Save(path, b); err != nil {
			t.Fatal(err)
		}
		if b, err := Open(a.dir); err != nil || bytes.Equal(b.PEM(), a.PEM()) {
			t.Errorf("%s: %v, want a new authority", name, err)
		}
	}
	for i := range len(good) - 1 { // the last line's end may be missing without harm
		if _, _, err := decode(good[:i]); err == nil {
			t.Errorf("decoded the first %d bytes", i)
		}
	}
	if err := secretKind.Save(path, good); err != nil {
		t.Fatal(err)
	}
	if b, err := Open(a.dir); err != nil || !bytes.Equal(b.PEM(), a.PEM()) {
		t.Errorf("the good file: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	os.Chmod(path, 0o640)
	if _, err := Open(a.dir); err == nil || !strings.Contains(err.Error(), "others may have read") {
		t.Errorf("a key that others could read: %v", err)
	}
}

func TestAnOrdinaryCertificateIsNoAuthority(t *testing.T) {
	a := open(t)
	c, err := a.leaf("tracker.example.org")
	if err != nil {
		t.Fatal(err)
	}
	key, _ := x509.MarshalPKCS8PrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	b := append(encode(c.Leaf), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if _, _, err := decode(b); err == nil {
		t.Error("a leaf was taken for an authority")
	}
}

func TestADirectoryThatCannotBeWrittenIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "dir")); err == nil {
		t.Error("Open made an authority inside a file")
	}
}

func TestAKeyLivesAYear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		first := a.key
		time.Sleep(Lifetime - renewAt - time.Hour)
		b, err := Open(dir)
		if err != nil || !b.key.Equal(first) {
			t.Fatalf("a new key too early, %v", err)
		}
		time.Sleep(2 * time.Hour)
		b, err = Open(dir)
		if err != nil || b.key.Equal(first) || time.Until(b.Expires()).Round(time.Second) != Lifetime {
			t.Fatalf("no new key in time: %v", err)
		}

		// One that runs for longer than its key renews it when it is used.
		time.Sleep(Lifetime)
		c, err := b.leaf("tracker.example.org")
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(t, b, c.Leaf, "tracker.example.org", x509.ExtKeyUsageServerAuth); err != nil {
			t.Error(err)
		}
	})
}

func TestALeafIsRenewedADayBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t)
		leaf := func() *tls.Certificate {
			c, err := a.leaf("tracker.example.org")
			if err != nil {
				t.Fatal(err)
			}
			if err := verify(t, a, c.Leaf, "tracker.example.org", x509.ExtKeyUsageServerAuth); err != nil {
				t.Error(err)
			}
			return c
		}
		first := leaf()
		time.Sleep(leafLife - leafRenew - time.Second)
		if leaf() != first {
			t.Error("renewed too early")
		}
		time.Sleep(time.Second)
		if leaf() == first {
			t.Error("not renewed")
		}
		time.Sleep(Lifetime - leafLife)
		if c := leaf(); c.Leaf.NotAfter.After(a.Expires()) {
			t.Errorf("a leaf outlives the authority by %v", c.Leaf.NotAfter.Sub(a.Expires()))
		}
	})
}

// shake lets a client meet an authority over loopback: a pipe has no buffer,
// and a client that has seen enough doesn't read on.
func shake(t *testing.T, a *Authority, host string, client func(conn net.Conn)) (net.Conn, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		client(conn)
	}()
	ours, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := a.Handshake(t.Context(), ours, host)
	if err != nil {
		<-done
		if _, werr := ours.Write([]byte("x")); werr == nil {
			t.Error("the conn is open after an error")
		}
	}
	return conn, err
}

func TestAClientThatTrustsUsTalks(t *testing.T) {
	a := open(t)
	roots := pool(t, a)
	for _, c := range []struct {
		name, host string
		config     *tls.Config
	}{
		{"TLS 1.3", "tracker.example.org", &tls.Config{RootCAs: roots, ServerName: "tracker.example.org"}},
		{"TLS 1.2", "tracker.example.org", &tls.Config{RootCAs: roots, ServerName: "tracker.example.org", MaxVersion: tls.VersionTLS12}},
		{"HTTP/2 offered too", "tracker.example.org", &tls.Config{RootCAs: roots, ServerName: "tracker.example.org", NextProtos: []string{"h2", "http/1.1"}}},
		{"an address has no SNI", "192.0.2.7", &tls.Config{RootCAs: roots, ServerName: "192.0.2.7"}},
		{"an address is dialled, SNI names the tracker", "192.0.2.8", &tls.Config{RootCAs: roots, ServerName: "tracker.example.org"}},
		{"a client that checks nothing", "tracker.example.org", &tls.Config{InsecureSkipVerify: true, ServerName: "tracker.example.org"}},
	} {
		conn, err := shake(t, a, c.host, func(conn net.Conn) {
			tc := tls.Client(conn, c.config)
			tc.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			b := make([]byte, 10)
			n, _ := tc.Read(b)
			tc.Write(b[:n])
			conn.Close()
		})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		b := make([]byte, 18)
		for n := 0; n < len(b); {
			k, err := conn.Read(b[n:])
			if err != nil {
				t.Fatalf("%s: %v after %q", c.name, err, b[:n])
			}
			n += k
		}
		if string(b) != "GET / HTTP/1.1\r\n\r\n" {
			t.Errorf("%s: read %q", c.name, b)
		}
		conn.Write([]byte("answer"))
		if n, err := conn.Read(b); string(b[:n]) != "answer" {
			t.Errorf("%s: read %q, %v", c.name, b[:n], err)
		}
		conn.Close()
	}
}

func TestAClientThatDoesNotIsToldCleanlyAndCounted(t *testing.T) {
	a := open(t)
	hang := func(conn net.Conn) { conn.Close() }
	for _, c := range []struct {
		name   string
		client func(conn net.Conn)
		want   error
	}{
		{"doesn't know us", func(conn net.Conn) {
			tls.Client(conn, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "tracker.example.org"}).Handshake()
			conn.Close()
		}, ErrDistrusted},
		{"doesn't know us, TLS 1.2", func(conn net.Conn) {
			tls.Client(conn, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "tracker.example.org", MaxVersion: tls.VersionTLS12}).Handshake()
			conn.Close()
		}, ErrDistrusted},
		{"looks at the certificate after the handshake", func(conn net.Conn) {
			tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "tracker.example.org"}).Handshake()
			conn.Close()
		}, ErrDistrusted},
		{"and says goodbye", func(conn net.Conn) {
			tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "tracker.example.org"})
			tc.Handshake()
			tc.Close()
		}, ErrDistrusted},
		{"another host", func(conn net.Conn) {
			err := tls.Client(conn, &tls.Config{ServerName: "bank.example"}).Handshake()
			if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("another host was told %v", err)
			}
			conn.Close()
		}, ErrNotAllowed},
		{"no host name", func(conn net.Conn) {
			tls.Client(conn, &tls.Config{ServerName: "localhost"}).Handshake()
			conn.Close()
		}, ErrNotAllowed},
		{"no TLS", func(conn net.Conn) {
			conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			conn.Close()
		}, ErrHandshake},
		{"an old TLS", func(conn net.Conn) {
			tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "tracker.example.org", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake()
			conn.Close()
		}, ErrHandshake},
		{"another protocol", func(conn net.Conn) {
			tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "tracker.example.org", NextProtos: []string{"h2"}}).Handshake()
			conn.Close()
		}, ErrHandshake},
		{"hangs up at once", hang, ErrHandshake},
	} {
		_, err := shake(t, a, "tracker.example.org", c.client)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "example") {
			t.Errorf("%s: the error names a host: %v", c.name, err)
		}
	}
}

func TestASilentClientHasTenSeconds(t *testing.T) {
	for name, client := range map[string]func(net.Conn){
		"no hello": func(net.Conn) {},
		"no request": func(conn net.Conn) {
			tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "tracker.example.org"}).Handshake()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := open(t)
			ours, theirs := net.Pipe()
			defer theirs.Close()
			go client(theirs)
			start := time.Now()
			_, err := a.Handshake(t.Context(), ours, "tracker.example.org")
			if !errors.Is(err, ErrHandshake) || time.Since(start) != HandshakeTimeout {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		})
	}
}

func TestHandshakeEndsWithItsContext(t *testing.T) {
	a := open(t)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Handshake(ctx, ours, "tracker.example.org"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestManyConnectionsAndHostsAtOnce(t *testing.T) {
	a := open(t)
	done := make(chan error)
	for i := range 20 {
		go func() {
			host := fmt.Sprintf("t%d.example.org", i%5)
			_, err := a.leaf(host)
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func FuzzHost(f *testing.F) {
	for _, h := range []string{"tracker.example.org", "co.uk", "192.0.2.7", "[2001:db8::7]", "a..b", "*.x.y", "xn--a.b"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got, err := clean(host)
		if err != nil {
			return
		}
		if again, err := clean(got); err != nil || again != got {
			t.Errorf("clean(%q) = %q, and then %q, %v", host, got, again, err)
		}
		if net.ParseIP(got) == nil && !strings.Contains(got, ".") {
			t.Errorf("clean(%q) = %q", host, got)
		}
	})
}

func FuzzDecode(f *testing.F) {
	a := open(f)
	f.Add(body(f, a))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, cert, err := decode(b)
		if err == nil && (key == nil || cert == nil || !cert.IsCA) {
			t.Errorf("took %q", b)
		}
	})
}
