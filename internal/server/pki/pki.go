// Package pki makes and keeps the certificates of a weft cluster: one authority, the API server's serving certificate,
// and client certificates for the operator and the nodes (RFC 5280; identities as Kubernetes reads them: the common name
// is the user, the organizations are the groups).
//
// Everything is written once, readable by its owner alone, and reused at the next start; a certificate is made anew
// only when it no longer fits (other names, other authority, near its end).
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 3 * 365 * 24 * time.Hour
	// renewBefore is how long before its end a certificate is replaced at a start.
	renewBefore = 90 * 24 * time.Hour
	// backdate forgives nodes whose clocks run behind the server's.
	backdate = 5 * time.Minute
)

// Pair is a certificate chain and its private key, both PEM.
type Pair struct{ Cert, Key []byte }

// Authority signs certificates. Its files are ca.crt and ca.key in Dir.
type Authority struct {
	Dir  string
	Cert *x509.Certificate
	PEM  []byte // the certificate
	key  crypto.Signer
}

// Names are the subject alternative names of a serving certificate.
type Names struct {
	DNS []string
	IPs []netip.Addr
}

// Open reads the authority kept in dir, or makes one there. A certificate without its key, or a key without its
// certificate, is an error: making a new authority would cut off every node silently.
func Open(dir string) (*Authority, error) {
	crt, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	pair, err := readPair(crt, key)
	if errors.Is(err, fs.ErrNotExist) {
		if pair, err = newAuthority(); err == nil {
			err = writePair(crt, key, pair)
		}
	}
	if err != nil {
		return nil, err
	}
	cert, signer, err := parsePair(pair)
	if err != nil {
		return nil, fmt.Errorf("read authority %s: %w", crt, err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("read authority %s: not a certificate authority", crt)
	}
	return &Authority{Dir: dir, Cert: cert, PEM: pair.Cert, key: signer}, nil
}

// Serving returns the files of the serving certificate called name, making it when there is none that fits names.
func (a *Authority) Serving(name string, names Names) (certFile, keyFile string, err error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    names.DNS,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, ip := range names.IPs {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
	}
	return a.keep(name, template, func(c *x509.Certificate) bool { return covers(c, names) })
}

// Client returns the files of the client certificate called name, for the given user and groups.
func (a *Authority) Client(name, user string, groups ...string) (certFile, keyFile string, err error) {
	return a.keep(name, clientTemplate(user, groups), func(c *x509.Certificate) bool { return c.Subject.CommonName == user })
}

// NewClient signs a new client certificate for the given user and groups and keeps no copy.
func (a *Authority) NewClient(user string, groups ...string) (Pair, error) {
	return a.sign(clientTemplate(user, groups))
}

// Fits reports whether the certificate is this authority's and good for a while longer.
func (a *Authority) Fits(cert *x509.Certificate) bool {
	return cert.CheckSignatureFrom(a.Cert) == nil && time.Now().Add(renewBefore).Before(cert.NotAfter)
}

func clientTemplate(user string, groups []string) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func (a *Authority) keep(name string, template *x509.Certificate, fits func(*x509.Certificate) bool) (string, string, error) {
	crt, key := filepath.Join(a.Dir, name+".crt"), filepath.Join(a.Dir, name+".key")
	if pair, err := readPair(crt, key); err == nil {
		if cert, _, err := parsePair(pair); err == nil && a.Fits(cert) && fits(cert) {
			return crt, key, nil
		}
	}
	pair, err := a.sign(template)
	if err != nil {
		return "", "", fmt.Errorf("sign certificate %s: %w", name, err)
	}
	return crt, key, writePair(crt, key, pair)
}

func (a *Authority) sign(template *x509.Certificate) (Pair, error) {
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return issue(template, a.Cert, a.key, leafLife)
}

func newAuthority() (Pair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "weft-ca"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	return issue(template, nil, nil, caLife)
}

// issue signs template with a fresh P-256 key; without a parent the certificate signs itself.
func issue(template, parent *x509.Certificate, parentKey crypto.Signer, life time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, fmt.Errorf("make serial number: %w", err)
	}
	now := time.Now()
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-backdate), now.Add(life)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate %q: %w", template.Subject.CommonName, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: keyPEM}, nil
}

func covers(cert *x509.Certificate, names Names) bool {
	for _, dns := range names.DNS {
		if !slices.Contains(cert.DNSNames, dns) {
			return false
		}
	}
	for _, ip := range names.IPs {
		if !slices.ContainsFunc(cert.IPAddresses, func(have net.IP) bool { return have.Equal(ip.AsSlice()) }) {
			return false
		}
	}
	return true
}

// SigningKey returns the file of the key that signs service account tokens, making it when there is none.
func SigningKey(dir string) (string, error) {
	file := filepath.Join(dir, "service-account.key")
	if _, err := os.Stat(file); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make service account key: %w", err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return "", err
	}
	return file, WriteFile(file, data)
}
