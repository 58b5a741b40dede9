package authority

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// The files in dir. Key and certificate are one file, so that they are never
// of two ages; the second is a copy of the certificate alone.
const (
	secretFile = "authority.key"
	publicFile = "authority.pem"
	maxFile    = 64 << 10
)

// Path returns where the authority's certificate is, in PEM, for a client's
// own setting or SSL_CERT_FILE. It holds no secret.
func (a *Authority) Path() string { return filepath.Join(a.dir, publicFile) }

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return encode(a.cert)
}

func encode(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// load reads key and certificate; both stay nil when there is no file.
func (a *Authority) load() error {
	path := filepath.Join(a.dir, secretFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("authority: %s: others may have read this key (mode %#o): delete it, and a new one is made", path, info.Mode().Perm())
	}
	if info.Size() > maxFile {
		return fmt.Errorf("authority: %s: %d bytes, at most %d", path, info.Size(), maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if a.key, a.cert, err = decode(b); err != nil {
		return fmt.Errorf("authority: %s: %w: delete it, and a new one is made", path, err)
	}
	return nil
}

// decode is the inverse of what store writes.
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
	if !cert.IsCA || len(cert.PermittedDNSDomains) == 0 {
		return nil, nil, errors.New("its certificate is not one of Shoal's")
	}
	return key, cert, nil
}

func store(dir string, key *ecdsa.PrivateKey, cert *x509.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	b := append(encode(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	return replace(filepath.Join(dir, secretFile), b, 0o600)
}

// export writes the file at Path. The caller holds mu, or is Open.
func (a *Authority) export() error { return replace(a.Path(), encode(a.cert), 0o644) }

// replace writes a file so that a reader, or a crash, finds the old or the new one whole.
func replace(path string, b []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // made 0600
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(b)
	if err == nil && runtime.GOOS != "windows" {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	return nil
}
