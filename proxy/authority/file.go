package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/shoal-p2p/shoal/circuit/state"
)

// The files in the folder. Key and certificate are one file, so that they are
// never of two ages; the second is a copy of the certificate alone.
const (
	secretFile = "authority.key"
	publicFile = "authority.pem"
)

var secretKind = &state.Kind{
	Name: "authority", Version: 2, Limit: 64 << 10, Policy: state.Erase, What: "the certificate authority",
	Lost: "a new one is made: give clients that were set to trust " + publicFile + " the new file, by starting them again",
}

// Path returns the file with the authority's certificate, in PEM, for a client's
// own setting or SSL_CERT_FILE. It holds no secret, and its content stays the
// same until Open makes a new authority. New's has no file: "".
func (a *Authority) Path() string {
	if a.dir == "" {
		return ""
	}
	return filepath.Join(a.dir, publicFile)
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return encode(a.cert)
}

func encode(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// load reads key and certificate; both stay nil when there is no file that can
// be used, or when others could have read it.
func (a *Authority) load() error {
	path := filepath.Join(a.dir, secretFile)
	if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("authority: %s: others may have read this key (mode %#o): remove it, and a new one is made", path, info.Mode().Perm())
	}
	_, err := secretKind.Load(path, func(b []byte) (err error) {
		a.key, a.cert, err = decode(b)
		return err
	})
	return err
}

// decode is the inverse of what save writes.
func decode(b []byte) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	first, rest := pem.Decode(b)
	if first == nil || first.Type != "CERTIFICATE" {
		return nil, nil, errors.New("no certificate in it")
	}
	second, _ := pem.Decode(rest)
	if second == nil || second.Type != "PRIVATE KEY" {
		return nil, nil, errors.New("no key in it")
	}
	cert, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("its certificate: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("its key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("key and certificate don't belong together")
	}
	if !cert.IsCA || !cert.MaxPathLenZero {
		return nil, nil, errors.New("its certificate is not one of Shoal's")
	}
	return key, cert, nil
}

// save writes both files, if the authority is kept.
func (a *Authority) save(key *ecdsa.PrivateKey, cert *x509.Certificate) error {
	if a.dir == "" {
		return nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := state.MakeDir(a.dir); err != nil {
		return err
	}
	b := append(encode(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	if err := secretKind.Save(filepath.Join(a.dir, secretFile), b); err != nil {
		return err
	}
	return a.export(cert)
}

// export writes the file at Path, unless it is there: a full disk is no reason
// not to start.
func (a *Authority) export(cert *x509.Certificate) error {
	if b, err := state.Read(a.Path(), secretKind.Limit); err == nil && bytes.Equal(b, encode(cert)) {
		return nil
	}
	if err := state.ReplaceBytes(a.Path(), 0o644, encode(cert)); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	return nil
}
