package netns

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// trustFile is where the command finds the certificate of the one authority that
// it trusts: a file in our own /run.
const trustFile = "/run/shoal-authority.pem"

// trustVariables name that file for those who look at the environment: OpenSSL
// and Go, curl, Python's requests, Node, and OpenSSL of NixOS.
var trustVariables = []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "NIX_SSL_CERT_FILE"}

// bundles are the files with the authorities that a system trusts. Libraries
// read one of them whatever the environment says: GnuTLS (aria2), libcurl
// (rTorrent), OpenSSL (libtorrent), Go, p11-kit and by it NSS. Many are links to
// another one of them.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",               // Debian, Arch, Alpine
	"/etc/ssl/cert.pem",                                // Alpine, Arch, OpenSSL in AppImages
	"/usr/lib/ssl/cert.pem",                            // OpenSSL on Debian
	"/etc/ca-certificates/extracted/tls-ca-bundle.pem", // Arch
	"/etc/pki/tls/cert.pem",                            // Fedora, and the next three
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/openssl/ca-bundle.trust.crt",
	"/etc/ssl/ca-bundle.pem", // openSUSE, and the next
	"/var/lib/ca-certificates/ca-bundle.pem",
}

// certifi are the bundles of Python's certifi, which programs bring along. ~ is
// the home folder, and … what the command's own program lies in.
var certifi = []string{
	"/usr/lib*/python3*/*-packages/certifi/cacert.pem",
	"/usr/local/lib/python3*/*-packages/certifi/cacert.pem",
	"~/.local/lib/python3*/site-packages/certifi/cacert.pem",
	"…/lib/python3*/site-packages/certifi/cacert.pem",
}

// keystores are the bundles of Java.
var keystores = []string{
	"/etc/ssl/certs/java/cacerts",              // Debian, Arch
	"/etc/pki/ca-trust/extracted/java/cacerts", // Fedora
	"/var/lib/ca-certificates/java-cacerts",    // openSUSE
	"…/lib/security/cacerts",                   // a Java that the command brought along
	"…/jre/lib/security/cacerts",
}

// certFolders are where OpenSSL and Qt look for an authority by the hash of its
// name, or p11-kit for authorities that the machine's owner has added.
var certFolders = []string{
	"/etc/ssl/certs",
	"/etc/pki/tls/certs",
	"/etc/ca-certificates/extracted/cadir",
	"/var/lib/ca-certificates/openssl",
	"/var/lib/ca-certificates/pem",
	"/etc/pki/ca-trust/source/anchors",
	"/etc/ca-certificates/trust-source/anchors",
	"/etc/pki/trust/anchors",
}

// isHash matches the names of certificates in such a folder.
var isHash = regexp.MustCompile(`^[0-9a-f]{8}\.r?[0-9]+$`)

// trustOnly lays the certificate of one authority over those of the system:
// there is nobody else whom the command could reach. program is the command's
// path. What can't be covered is left: it would lead nowhere.
func trustOnly(own *overlay, certificate []byte, program string) {
	own.trust = certificate
	block, _ := pem.Decode(certificate)
	if block == nil {
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return
	}
	for _, folder := range certFolders {
		coverCerts(folder, cert, certificate)
	}
	for _, path := range places(append(slices.Clone(bundles), certifi...), program) {
		_ = own.lay(path, text(certificate))
	}
	store := keystore(cert)
	for _, path := range places(keystores, program) {
		_ = own.lay(path, text(store))
	}
}

// trusted returns the path of a file with the one authority that the command
// trusts, or "" if it is to trust those of the system.
func (o *overlay) trusted() string {
	if o.trust == nil {
		return ""
	}
	if b, err := os.ReadFile(trustFile); err == nil && bytes.Equal(b, o.trust) {
		return trustFile
	}
	for _, path := range bundles { // there is no /run
		if o.has(path) {
			return path
		}
	}
	return ""
}

// places returns the paths that patterns stand for. One without a wildcard need
// not exist.
func places(patterns []string, program string) (out []string) {
	around := filepath.Dir(filepath.Dir(program))
	if real, err := filepath.EvalSymlinks(program); err == nil {
		around = filepath.Dir(filepath.Dir(real))
	}
	for _, p := range patterns {
		p = strings.Replace(strings.Replace(p, "~", os.Getenv("HOME"), 1), "…", around, 1)
		if found, err := filepath.Glob(p); err == nil && strings.Contains(p, "*") {
			out = append(out, found...)
		} else {
			out = append(out, p)
		}
	}
	return out
}

// coverCerts makes a folder hold the one certificate under the name that OpenSSL
// looks for, and what else was there, such as a web server's own.
func coverCerts(folder string, cert *x509.Certificate, certificate []byte) {
	folder, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return
	}
	name := subjectHash(cert) + ".0"
	if _, err := os.Lstat(filepath.Join(folder, name)); err == nil {
		return // by another path
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	var gone []string
	for _, e := range entries {
		if isHash.MatchString(e.Name()) {
			gone = append(gone, e.Name())
		}
	}
	if err := cover(folder, gone, map[string][]byte{name: certificate}, true); err != nil {
		_ = unix.Unmount(folder, unix.MNT_DETACH)
	}
}

// subjectHash returns the name under which OpenSSL looks for an authority in a
// folder: the first four bytes, turned round, of the SHA-1 of its subject, with
// every text in UTF-8, in lower case, and without superfluous spaces.
func subjectHash(cert *x509.Certificate) string {
	var subject pkix.RDNSequence
	if _, err := asn1.Unmarshal(cert.RawSubject, &subject); err != nil {
		return "00000000"
	}
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value string `asn1:"utf8"`
	}
	var all []byte
	for _, set := range subject {
		var canonical []attribute
		for _, a := range set {
			canonical = append(canonical, attribute{a.Type, strings.Join(strings.Fields(strings.Map(lower, fmt.Sprint(a.Value))), " ")})
		}
		b, err := asn1.MarshalWithParams(canonical, "set")
		if err != nil {
			return "00000000"
		}
		all = append(all, b...)
	}
	sum := sha1.Sum(all)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:]))
}

// lower is unicode.ToLower for ASCII alone.
func lower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}

// keystore returns a Java keystore, in the format JKS, in which cert is trusted.
// Its password is the one that everybody's has.
func keystore(cert *x509.Certificate) []byte {
	const magic, version, trusted = 0xfeedfeed, 2, 2
	be := binary.BigEndian
	str := func(b []byte, s string) []byte { return append(be.AppendUint16(b, uint16(len(s))), s...) }
	var b []byte
	for _, n := range []uint32{magic, version, 1, trusted} {
		b = be.AppendUint32(b, n)
	}
	b = str(b, "shoal")
	b = be.AppendUint64(b, uint64(cert.NotBefore.UnixMilli()))
	b = str(b, "X.509")
	b = append(be.AppendUint32(b, uint32(len(cert.Raw))), cert.Raw...)
	sum := sha1.New()
	for _, c := range "changeit" {
		sum.Write([]byte{0, byte(c)})
	}
	sum.Write([]byte("Mighty Aphrodite"))
	sum.Write(b)
	return sum.Sum(b)
}
