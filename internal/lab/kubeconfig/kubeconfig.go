// Package kubeconfig reads as much of a kubeconfig as it takes to ask an API server whether it is ready: the lab does that many
// times a second, for which starting kubectl is too slow.
//
// Floor 4, programs.
package kubeconfig

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

type config struct {
	Clusters []struct {
		Cluster struct {
			CA string `yaml:"certificate-authority-data"`
		} `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		User struct {
			Cert string `yaml:"client-certificate-data"`
			Key  string `yaml:"client-key-data"`
		} `yaml:"user"`
	} `yaml:"users"`
}

// TLS returns the client side of TLS for the first cluster and user of a kubeconfig with embedded certificates.
func TLS(data []byte) (*tls.Config, error) {
	var c config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("decode kubeconfig: %w", err)
	}
	if len(c.Clusters) == 0 || len(c.Users) == 0 {
		return nil, errors.New("decode kubeconfig: no cluster or no user in it")
	}
	var parts [3][]byte
	for i, text := range []string{c.Clusters[0].Cluster.CA, c.Users[0].User.Cert, c.Users[0].User.Key} {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("decode kubeconfig's certificates: %w", err)
		}
		parts[i] = b
	}
	pair, err := tls.X509KeyPair(parts[1], parts[2])
	if err != nil {
		return nil, fmt.Errorf("decode kubeconfig's client certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(parts[0]) {
		return nil, errors.New("decode kubeconfig's CA: no certificate in it")
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}
