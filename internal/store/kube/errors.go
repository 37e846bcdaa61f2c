package kube

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// What can be wrong between here and the API server; test with errors.Is.
var (
	// ErrUnreachable says that no Kubernetes API answers at the kubeconfig's server.
	ErrUnreachable = errors.New("no Kubernetes API")
	// ErrUnauthorized says that the server does not know the kubeconfig's identity (401) or does not allow it this (403).
	ErrUnauthorized = errors.New("not authorized")
	// ErrUntrusted says that the server's certificate is not signed by the kubeconfig's certificate authority.
	ErrUntrusted = errors.New("certificate not trusted")
	// ErrNotFound says that the object does not exist (any more).
	ErrNotFound = errors.New("not found")
)

// clear turns a client error into one that names the server, the kubeconfig and the fix.
func (s *Store) clear(err error) error {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		netErr    net.Error
		urlErr    *url.Error
	)
	switch {
	case err == nil:
		return nil
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: %s refuses the identity of %s (401): renew its client certificate or token", ErrUnauthorized, s.host, s.path)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.As(err, &authority):
		return fmt.Errorf("%w: %s is not signed by certificate-authority-data of %s: is it another cluster's?", ErrUntrusted, s.host, s.path)
	case errors.As(err, &hostname), errors.As(err, &invalid):
		return fmt.Errorf("%w: %s: %w", ErrUntrusted, s.host, errors.Unwrap(urlCause(err)))
	case errors.As(err, &urlErr), errors.As(err, &netErr):
		return fmt.Errorf("%w answers at %s (field server of %s): %w", ErrUnreachable, s.host, s.path, urlCause(err))
	}
	return err
}

// urlCause is the error without net/http's "Get URL" in front, whose URL the message has already.
func urlCause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func decodeJSON(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}
