package server

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"k8s.io/client-go/util/keyutil"

	"weft/internal/server/pki"
)

// keys are the secrets of a running server.
type keys struct {
	authority *pki.Authority
	cluster   pki.Cluster // what kubeconfigs say
	signing   string      // file of the key that signs service account tokens
}

// nodeName is what Kubernetes takes for the name of a Node (RFC 1123); it also keeps node names usable as file names.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func checkNodeName(name string) error {
	if len(name) > 253 || !nodeName.MatchString(name) {
		return fmt.Errorf("%q is not a node name: use lower case letters, digits, '-' and '.'", name)
	}
	return nil
}

// fileFlags are the flags that name a file to read, checked before anything starts.
func (o *Options) fileFlags() map[string]string {
	auth, serving := o.kube.Authentication, o.kube.SecureServing.ServerCert.CertKey
	files := map[string]string{
		"tls-cert-file": serving.CertFile, "tls-private-key-file": serving.KeyFile,
		"client-ca-file": auth.ClientCert.ClientCA, "token-auth-file": auth.TokenFile.TokenFile,
		"service-account-signing-key-file": o.kube.ServiceAccountSigningKeyFile,
		"kubelet-client-certificate":       o.kubelet.TLSClientConfig.CertFile,
		"kubelet-client-key":               o.kubelet.TLSClientConfig.KeyFile,
		"kubelet-certificate-authority":    o.kubelet.TLSClientConfig.CAFile,
		"etcd-cafile":                      o.kube.Etcd.StorageConfig.Transport.TrustedCAFile,
		"etcd-certfile":                    o.kube.Etcd.StorageConfig.Transport.CertFile,
		"etcd-keyfile":                     o.kube.Etcd.StorageConfig.Transport.KeyFile,
	}
	for _, f := range auth.ServiceAccounts.KeyFiles {
		files["service-account-key-file"] = f
	}
	return files
}

// checkFiles refuses files that are not there and keys that do not match.
func (o *Options) checkFiles() error {
	files := o.fileFlags()
	for _, flag := range sortedKeys(files) {
		if files[flag] == "" {
			continue
		}
		f, err := os.Open(files[flag])
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		_ = f.Close()
	}
	for _, p := range [][2]string{
		{"tls-cert-file", "tls-private-key-file"}, {"kubelet-client-certificate", "kubelet-client-key"}, {"etcd-certfile", "etcd-keyfile"},
	} {
		cert, key := files[p[0]], files[p[1]]
		switch {
		case cert == "" && key == "":
		case key == "":
			return fmt.Errorf("--%s needs --%s, its key", p[0], p[1])
		case cert == "":
			return fmt.Errorf("--%s needs --%s, its certificate", p[1], p[0])
		default:
			if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
				return fmt.Errorf("--%s %s, --%s %s: %w", p[0], cert, p[1], key, err)
			}
		}
	}
	if ca := files["client-ca-file"]; ca != "" {
		if _, err := pki.ReadCertificates(ca); err != nil {
			return fmt.Errorf("--client-ca-file: %w", err)
		}
	}
	return nil
}

// makeKeys completes what the flags leave open: the authority, certificates, signing key and kubeconfigs of d. The server's own
// authority is trusted next to the one of --client-ca-file, since it signs the kubeconfigs written here.
func (o *Options) makeKeys(d *dataDir, r ranges) (keys, error) {
	authority, err := pki.Open(d.pki())
	if err != nil {
		return keys{}, err
	}
	k := keys{authority: authority}
	if k.signing, err = o.signingKey(d.pki()); err != nil {
		return keys{}, err
	}
	serving := &o.kube.SecureServing.ServerCert.CertKey
	own := serving.CertFile == ""
	if own {
		if serving.CertFile, serving.KeyFile, err = authority.Serving("server", o.servingNames(r)); err != nil {
			return keys{}, err
		}
	}
	tlsConfig := &o.kubelet.TLSClientConfig
	if tlsConfig.CertFile == "" {
		tlsConfig.CertFile, tlsConfig.KeyFile, err = authority.Client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
		if err != nil {
			return keys{}, err
		}
	}
	if k.cluster, err = o.cluster(authority, own); err != nil {
		return keys{}, err
	}
	clientCA := &o.kube.Authentication.ClientCert.ClientCA
	if *clientCA, err = trustBoth(authority, *clientCA); err != nil {
		return keys{}, err
	}
	if err := authority.Kubeconfig(d.adminKubeconfig(), k.cluster, "weft-admin", "system:masters"); err != nil {
		return keys{}, err
	}
	for _, node := range o.NodeNames {
		if _, err := authority.NodeKubeconfig(d.nodes(), node, k.cluster); err != nil {
			return keys{}, err
		}
	}
	return k, nil
}

// trustBoth returns the file of the authority's certificate, followed by those of the file given, when there is one.
func trustBoth(authority *pki.Authority, given string) (string, error) {
	if given == "" {
		return filepath.Join(authority.Dir, "ca.crt"), nil
	}
	certs, err := pki.ReadCertificates(given)
	if err != nil {
		return "", fmt.Errorf("--client-ca-file: %w", err)
	}
	file := filepath.Join(authority.Dir, "client-ca.crt")
	return file, pki.WriteFile(file, slices.Concat(authority.PEM, pki.EncodeCertificates(certs)))
}

// signingKey settles which key signs tokens: the one given; else the private half of --service-account-key-file, which
// is in that file, or is the serving key when that file is the serving certificate; else one made here. What was given
// with --service-account-key-file keeps verifying tokens.
func (o *Options) signingKey(dir string) (string, error) {
	accounts := o.kube.Authentication.ServiceAccounts
	signing := &o.kube.ServiceAccountSigningKeyFile
	candidates := append([]string{}, accounts.KeyFiles...)
	if key := o.kube.SecureServing.ServerCert.CertKey.KeyFile; key != "" && len(candidates) > 0 {
		candidates = append(candidates, key)
	}
	public := map[string]bool{}
	for _, file := range accounts.KeyFiles {
		found, err := keyutil.PublicKeysFromFile(file)
		if err != nil {
			return "", fmt.Errorf("--service-account-key-file: %w", err)
		}
		for _, key := range found {
			public[fingerprint(key)] = true
		}
	}
	for _, file := range candidates {
		if *signing != "" {
			break
		}
		key, err := keyutil.PrivateKeyFromFile(file)
		if err != nil {
			continue // a certificate or a public key: it verifies only
		}
		if signer, ok := key.(crypto.Signer); ok && public[fingerprint(signer.Public())] {
			*signing = file
		}
	}
	if *signing == "" {
		var err error
		if *signing, err = pki.SigningKey(dir); err != nil {
			return "", err
		}
	}
	if !slices.Contains(accounts.KeyFiles, *signing) {
		accounts.KeyFiles = append(accounts.KeyFiles, *signing)
	}
	return *signing, nil
}

func fingerprint(public any) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	return string(der)
}

// servingNames are the names clients may know the server by.
func (o *Options) servingNames(r ranges) pki.Names {
	names := pki.Names{DNS: []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "kube-master",
	}}
	if host, err := os.Hostname(); err == nil && !slices.Contains(names.DNS, host) && nodeName.MatchString(host) {
		names.DNS = append(names.DNS, host)
	}
	add := func(ip netip.Addr) {
		if ip = ip.Unmap(); ip.IsValid() && !ip.IsUnspecified() && !slices.Contains(names.IPs, ip) {
			names.IPs = append(names.IPs, ip)
		}
	}
	add(netip.MustParseAddr("127.0.0.1"))
	add(netip.IPv6Loopback())
	for _, p := range r.service {
		add(first(p))
	}
	for _, ip := range []net.IP{o.kube.GenericServerRunOptions.AdvertiseAddress, o.kube.SecureServing.BindAddress} {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			add(addr)
		}
	}
	return names
}

// cluster is the server as its clients see it. They have to trust a serving certificate given with --tls-cert-file
// through the authority of --client-ca-file, its own chain, or itself.
func (o *Options) cluster(authority *pki.Authority, own bool) (pki.Cluster, error) {
	host := o.kube.SecureServing.BindAddress
	if host.IsUnspecified() {
		host = o.kube.GenericServerRunOptions.AdvertiseAddress
	}
	address := url.URL{Scheme: "https", Host: net.JoinHostPort(host.String(), itoa(o.kube.SecureServing.BindPort))}
	c := pki.Cluster{Server: address.String(), CA: authority.PEM}
	if own {
		return c, nil
	}
	chain, err := pki.ReadCertificates(o.kube.SecureServing.ServerCert.CertKey.CertFile)
	if err != nil {
		return c, fmt.Errorf("--tls-cert-file: %w", err)
	}
	bundle := [][]byte{c.CA, pki.EncodeCertificates(chain)}
	if ca := o.kube.Authentication.ClientCert.ClientCA; ca != "" {
		more, err := pki.ReadCertificates(ca)
		if err != nil {
			return c, fmt.Errorf("--client-ca-file: %w", err)
		}
		bundle = append(bundle, pki.EncodeCertificates(more))
	}
	c.CA = bytes.Join(bundle, nil)
	if leaf := chain[0]; leaf.VerifyHostname(host.String()) != nil && len(leaf.DNSNames) > 0 {
		c.TLSServerName = leaf.DNSNames[0]
	}
	return c, nil
}
