package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile puts data at path, readable by the owner alone, all of it or nothing.
func WriteFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // created 0600
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write file %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}

// readPair answers fs.ErrNotExist only when both files are missing.
func readPair(certFile, keyFile string) (Pair, error) {
	cert, certErr := os.ReadFile(certFile)
	key, keyErr := os.ReadFile(keyFile)
	switch noCert, noKey := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist); {
	case certErr == nil && keyErr == nil:
		return Pair{Cert: cert, Key: key}, nil
	case noCert && noKey:
		return Pair{}, fs.ErrNotExist
	case noKey:
		return Pair{}, fmt.Errorf("%s has no key: put %s back, or remove the certificate to make a new pair", certFile, keyFile)
	case noCert:
		return Pair{}, fmt.Errorf("%s has no certificate: put %s back, or remove the key to make a new pair", keyFile, certFile)
	}
	return Pair{}, errors.Join(certErr, keyErr)
}

// writePair writes the key first: a certificate on disk always has its key.
func writePair(certFile, keyFile string, pair Pair) error {
	if err := WriteFile(keyFile, pair.Key); err != nil {
		return err
	}
	return WriteFile(certFile, pair.Cert)
}

func parsePair(pair Pair) (*x509.Certificate, crypto.Signer, error) {
	both, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("read key pair: %w", err)
	}
	signer, ok := both.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("read key pair: a %T cannot sign", both.PrivateKey)
	}
	return both.Leaf, signer, nil
}

// ReadCertificates returns every certificate of a PEM file; none at all is an error.
func ReadCertificates(file string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s: %w", file, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("read certificate %s: no PEM block CERTIFICATE in it", file)
	}
	return certs, nil
}

// EncodeCertificates returns certs as PEM.
func EncodeCertificates(certs []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// encodeKey uses SEC 1 (RFC 5915): the one form of a private key upstream also takes for the public one.
func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
