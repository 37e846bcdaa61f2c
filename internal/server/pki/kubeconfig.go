package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Cluster is what a kubeconfig says about the API server.
type Cluster struct {
	Server        string // URL, https://host:port
	CA            []byte // PEM, everything a client may have to trust
	TLSServerName string // the name to expect in the server's certificate, when it is not the URL's host
}

// Kubeconfig keeps at file the kubeconfig of a client of cluster, with a certificate of its own for user and groups. What
// is there stays when it still fits; only then does a copy handed out yesterday equal the file of today.
func (a *Authority) Kubeconfig(file string, cluster Cluster, user string, groups ...string) error {
	if a.kubeconfigFits(file, cluster, user) {
		return nil
	}
	pair, err := a.NewClient(user, groups...)
	if err != nil {
		return err
	}
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["weft"] = &clientcmdapi.Cluster{
		Server: cluster.Server, CertificateAuthorityData: cluster.CA, TLSServerName: cluster.TLSServerName,
	}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.Cert, ClientKeyData: pair.Key}
	cfg.Contexts["weft"] = &clientcmdapi.Context{Cluster: "weft", AuthInfo: user}
	cfg.CurrentContext = "weft"
	data, err := clientcmd.Write(*cfg)
	if err != nil {
		return fmt.Errorf("encode kubeconfig of %s: %w", user, err)
	}
	return WriteFile(file, data)
}

// NodeKubeconfig keeps <dir>/<node>.kubeconfig, the identity system:node:<node>, and returns its path.
func (a *Authority) NodeKubeconfig(dir, node string, cluster Cluster) (string, error) {
	file := filepath.Join(dir, node+".kubeconfig")
	return file, a.Kubeconfig(file, cluster, "system:node:"+node, "system:nodes")
}

// ReadCluster returns what the kubeconfig at file says about its server.
func ReadCluster(file string) (Cluster, error) {
	cfg, err := clientcmd.LoadFromFile(file)
	if err != nil {
		return Cluster{}, err
	}
	have, ok := cfg.Clusters["weft"]
	if !ok {
		return Cluster{}, fmt.Errorf("read kubeconfig %s: no cluster called weft", file)
	}
	return Cluster{Server: have.Server, CA: have.CertificateAuthorityData, TLSServerName: have.TLSServerName}, nil
}

func (a *Authority) kubeconfigFits(file string, cluster Cluster, user string) bool {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	have, err := ReadCluster(file)
	if err != nil || have.Server != cluster.Server || have.TLSServerName != cluster.TLSServerName || !bytes.Equal(have.CA, cluster.CA) {
		return false
	}
	cfg, err := clientcmd.LoadFromFile(file)
	if err != nil || cfg.AuthInfos[user] == nil {
		return false
	}
	block, _ := pem.Decode(cfg.AuthInfos[user].ClientCertificateData)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && cert.Subject.CommonName == user && a.Fits(cert)
}
