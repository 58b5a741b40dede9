package netns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type issued struct {
	cert *x509.Certificate
	pem  []byte
}

// certificate makes an authority's certificate for a subject.
func certificate(name string) issued { return certificateOf(pkix.Name{CommonName: name}) }

func certificateOf(subject pkix.Name) issued {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return issued{cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// What `openssl x509 -subject_hash` prints for these subjects.
func TestSubjectHashIsOpenSSLs(t *testing.T) {
	for want, subject := range map[string]pkix.Name{
		"6f832fec": {CommonName: "Shoal, for one torrent client only"},
		"f02ce126": {Country: []string{"DE"}, Organization: []string{"  Two   Spaces "}, CommonName: "BÜCHER & Co"},
	} {
		if got := subjectHash(certificateOf(subject).cert); got != want {
			t.Errorf("%v: %s, want %s", subject, got, want)
		}
	}
}

func TestAKeystoreHoldsTheCertificate(t *testing.T) {
	c := certificate("Test").cert
	b := keystore(c)
	body, sum := b[:len(b)-sha1.Size], b[len(b)-sha1.Size:]
	want := sha1.Sum(append([]byte("\x00c\x00h\x00a\x00n\x00g\x00e\x00i\x00tMighty Aphrodite"), body...))
	if !bytes.Equal(sum, want[:]) || !bytes.HasPrefix(body, []byte("\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x02\x00\x05shoal")) || !bytes.HasSuffix(body, c.Raw) {
		t.Errorf("the keystore is %x", b)
	}
}

func init() {
	// authorities: a system that trusts others, in all the places of several
	// distributions.
	roles["authorities"] = func(args []string) error {
		home, err := os.MkdirTemp("", "home")
		if err != nil {
			return err
		}
		defer os.RemoveAll(home)
		os.Setenv("HOME", home)
		program := filepath.Join(home, "venv/bin/client")
		old := []byte("the system's\n")
		err = errors.Join(emptyEtc(), unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"))
		for _, path := range []string{
			"/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/java/cacerts", "/etc/ssl/certs/web.pem", "/etc/pki/tls/certs/ca-bundle.crt",
			"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/ca-trust/source/anchors/company.pem",
			home + "/.local/lib/python3.11/site-packages/certifi/cacert.pem", home + "/venv/lib/python3.12/site-packages/certifi/cacert.pem",
			home + "/venv/lib/security/cacerts",
		} {
			err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, old, 0o644))
		}
		err = errors.Join(err, os.Symlink("web.pem", "/etc/ssl/certs/0123abcd.0"), os.Symlink("certs/ca-certificates.crt", "/etc/ssl/cert.pem"),
			os.MkdirAll(filepath.Dir(program), 0o755), os.WriteFile(program, []byte("#!/bin/sh\n. $SCRIPT\n"), 0o755), os.Symlink(program, home+"/client"))
		if len(args) > 0 {
			err = errors.Join(err, unix.Unmount("/run", 0), os.MkdirAll("/tmp", 0o1777))
		}
		script := filepath.Join(home, "script")
		err = errors.Join(err, os.WriteFile(script, []byte(`
			for f in /etc/ssl/certs/*.crt /etc/ssl/certs/????????.? /etc/ssl/certs/web.pem /etc/ssl/cert.pem /etc/pki/tls/certs/* \
				/etc/pki/ca-trust/extracted/pem/* /etc/pki/ca-trust/source/anchors/* ~/.local/lib/python3*/*/certifi/* ~/venv/lib/python3*/*/certifi/*; do
				if cmp -s "$f" $SSL_CERT_FILE; then echo "$f is ours"; else echo "$f: $(cat "$f")"; fi
			done | sed "s|$HOME|~|"
			head -c 19 /etc/ssl/certs/java/cacerts | tail -c 1; cmp /etc/ssl/certs/java/cacerts ~/venv/lib/security/cacerts
			echo; env | grep -E "^(SSL|CURL|REQUESTS|NODE|NIX)" | sort; ls /run 
		`), 0o644))
		if err != nil {
			return err
		}
		os.Setenv("SCRIPT", script)
		os.Setenv("SSL_CERT_DIR", "/somewhere")
		os.Setenv("REQUESTS_CA_BUNDLE", "/somewhere")
		code, err := runScript("", func(cfg *Config) {
			cfg.Command, cfg.Trust = []string{home + "/client"}, certificate("Test").pem
		})
		fmt.Println(code)
		return err
	}
}

func TestTheCommandTrustsOneAuthorityOnly(t *testing.T) {
	hash := subjectHash(certificate("Test").cert)
	want := strings.ReplaceAll(`/etc/ssl/certs/ca-certificates.crt is ours
/etc/ssl/certs/HASH.0 is ours
/etc/ssl/certs/web.pem: the system's
/etc/ssl/cert.pem is ours
/etc/pki/tls/certs/HASH.0 is ours
/etc/pki/tls/certs/ca-bundle.crt is ours
/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem is ours
/etc/pki/ca-trust/source/anchors/HASH.0 is ours
/etc/pki/ca-trust/source/anchors/company.pem: the system's
~/.local/lib/python3.11/site-packages/certifi/cacert.pem is ours
~/venv/lib/python3.12/site-packages/certifi/cacert.pem is ours
s
CURL_CA_BUNDLE=/run/shoal-authority.pem
NIX_SSL_CERT_FILE=/run/shoal-authority.pem
NODE_EXTRA_CA_CERTS=/run/shoal-authority.pem
REQUESTS_CA_BUNDLE=/run/shoal-authority.pem
SSL_CERT_FILE=/run/shoal-authority.pem
shoal-authority.pem
0`, "HASH", hash)
	if got := outer(t, "authorities", 0); got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
}
