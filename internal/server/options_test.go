package server

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/pkg/controlplane"

	"weft/internal/server/pki"
)

// parse returns the options of a command line, as the program reads them.
func parse(t *testing.T, args ...string) (*Options, error) {
	t.Helper()
	o := NewOptions()
	fs := pflag.NewFlagSet("weft-server", pflag.ContinueOnError)
	o.AddFlags(fs)
	return o, fs.Parse(append([]string{"--advertise-address=172.17.42.30"}, args...))
}

// article is the walkthrough's command line, with its files below dir.
func article(dir string) []string {
	args := strings.Fields(`--logtostderr=true --v=0 --etcd-servers=http://kube-master:2379 --insecure-bind-address=127.0.0.1 --secure-port=443
		--allow-privileged=true --service-cluster-ip-range=10.254.0.0/16
		--admission-control=NamespaceLifecycle,NamespaceExists,LimitRanger,SecurityContextDeny,ServiceAccount,ResourceQuota
		--tls-cert-file=/etc/kubernetes/certs/server.crt --tls-private-key-file=/etc/kubernetes/certs/server.key
		--client-ca-file=/etc/kubernetes/certs/ca.crt --token-auth-file=/etc/kubernetes/tokens/known_tokens.csv
		--service-account-key-file=/etc/kubernetes/certs/server.crt`)
	for i := range args {
		args[i] = strings.ReplaceAll(strings.ReplaceAll(args[i], "/etc/kubernetes/certs", dir), "/etc/kubernetes/tokens", dir)
	}
	return args
}

// articleFiles makes the files of the article's command line.
func articleFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	a, err := pki.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Serving("server", pki.Names{DNS: []string{"kube-master"}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "known_tokens.csv"), []byte("secret,alice,1,\"system:masters\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestArticle(t *testing.T) {
	dir := articleFiles(t)
	o, err := parse(t, article(dir)...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.plan()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.warnings) != 2 || !strings.Contains(p.warnings[0], "--insecure-bind-address is retired") ||
		!strings.Contains(p.warnings[1], "SecurityContextDeny is gone") || !strings.Contains(p.warnings[1], "PodSecurity") {
		t.Errorf("warnings: %q", p.warnings)
	}
	want := []string{
		"DefaultTolerationSeconds", "LimitRanger", "NamespaceExists", "NamespaceLifecycle", "NodeRestriction", "PodSecurity",
		"Priority", "ResourceQuota", "ServiceAccount", "TaintNodesByCondition",
	}
	if got := o.kube.Admission.GenericAdmission.EnablePlugins; !slices.Equal(got, want) {
		t.Errorf("plugins %v, want %v", got, want)
	}
	if o.embedded() || p.etcdURLs != nil || o.kube.SecureServing.BindPort != 443 || !o.AllowPrivileged {
		t.Error("a flag of the article was lost")
	}
	// The article's service account key file is the serving certificate: its key signs.
	if key, err := o.signingKey(t.TempDir()); err != nil || key != filepath.Join(dir, "server.key") {
		t.Errorf("signing key %q, %v", key, err)
	}
}

func TestSigningKey(t *testing.T) {
	dir := articleFiles(t)
	for _, tc := range []struct {
		name string
		args []string
		want string // base name
	}{
		{"made", nil, "service-account.key"},
		{"key file holds the private key", []string{"--service-account-key-file=" + dir + "/ca.key"}, "ca.key"},
		{"key file is a foreign certificate", []string{
			"--service-account-key-file=" + dir + "/ca.crt",
			"--tls-cert-file=" + dir + "/server.crt", "--tls-private-key-file=" + dir + "/server.key",
		}, "service-account.key"},
		{"said", []string{"--service-account-signing-key-file=" + dir + "/ca.key"}, "ca.key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := parse(t, tc.args...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.signingKey(t.TempDir())
			if err != nil || filepath.Base(got) != tc.want {
				t.Fatalf("%q, %v, want %q", got, err, tc.want)
			}
			if !slices.Contains(o.kube.Authentication.ServiceAccounts.KeyFiles, got) {
				t.Error("tokens of the signing key would not be accepted")
			}
		})
	}
}

func TestAdmission(t *testing.T) {
	for _, tc := range []struct {
		name, arg string
		on, off   []string
		warn      string
	}{
		{"default", "", defaultOn, []string{"RuntimeClass", "ValidatingAdmissionWebhook", "AlwaysPullImages"}, ""},
		{"more", "--enable-admission-plugins=AlwaysPullImages", append([]string{"AlwaysPullImages"}, defaultOn...), nil, ""},
		{"fewer", "--disable-admission-plugins=PodSecurity", []string{"LimitRanger"}, []string{"PodSecurity"}, ""},
		{"exact", "--admission-control=NamespaceLifecycle", append([]string{"NamespaceLifecycle"}, builtIn...), []string{"PodSecurity", "LimitRanger"}, ""},
		{"retired", "--enable-admission-plugins=PodSecurityPolicy", []string{"PodSecurity"}, nil, "PodSecurityPolicy is gone since Kubernetes 1.25"},
		{"retired without heir", "--enable-admission-plugins=PersistentVolumeLabel", defaultOn, nil, "PersistentVolumeLabel is gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := parse(t, strings.Fields(tc.arg)...)
			if err != nil {
				t.Fatal(err)
			}
			warn, err := o.admission()
			if err != nil {
				t.Fatal(err)
			}
			a := o.kube.Admission.GenericAdmission
			for _, name := range tc.on {
				if !slices.Contains(a.EnablePlugins, name) {
					t.Errorf("%s is not on", name)
				}
			}
			for _, name := range tc.off {
				if slices.Contains(a.EnablePlugins, name) || !slices.Contains(a.DisablePlugins, name) {
					t.Errorf("%s is not off", name)
				}
			}
			if all := strings.Join(warn, "\n"); tc.warn == "" && all != "" || !strings.Contains(all, tc.warn) {
				t.Errorf("warnings %q, want %q", all, tc.warn)
			}
			if errs := o.kube.Admission.Validate(); len(errs) > 0 {
				t.Errorf("upstream refuses the result: %v", errs)
			}
		})
	}
}

// Every name in the tables is one upstream knows, or is really gone from it.
func TestPluginTables(t *testing.T) {
	known := NewOptions().kube.Admission.GenericAdmission.Plugins.Registered()
	for _, name := range slices.Concat(defaultOn, builtIn) {
		if !slices.Contains(known, name) {
			t.Errorf("%s does not exist", name)
		}
	}
	for name, gone := range retiredPlugins {
		if slices.Contains(known, name) {
			t.Errorf("%s is not retired", name)
		}
		if gone.plugin != "" && !slices.Contains(known, gone.plugin) {
			t.Errorf("%s is replaced with %s, which does not exist", name, gone.plugin)
		}
	}
	groups := controlplane.DefaultAPIResourceConfigSource().GroupVersionConfigs
	for _, gv := range notServed {
		if _, ok := groups[gv]; !ok {
			t.Errorf("%s is no group of upstream", gv)
		}
	}
}

// Bad flags get one line that names the flag, the value and what to do.
func TestBadFlags(t *testing.T) {
	dir := articleFiles(t)
	for _, tc := range []struct{ name, args, want string }{
		{"unknown flag", "--frobnicate=1", "unknown flag: --frobnicate"},
		{"bad CIDR", "--service-cluster-ip-range=10.254.0.0", `--service-cluster-ip-range: "10.254.0.0" is not a CIDR`},
		{"host bits", "--cluster-cidr=172.16.5.0/12", "--cluster-cidr: 172.16.5.0/12 has bits set beyond the prefix: write 172.16.0.0/12"},
		{"two of a family", "--cluster-cidr=10.1.0.0/16,10.2.0.0/16", "give one CIDR, or one of IPv4 and one of IPv6"},
		{"overlap", "--cluster-cidr=10.0.0.0/8", "--service-cluster-ip-range 10.254.0.0/16 overlaps --cluster-cidr 10.0.0.0/8"},
		{"small range", "--service-cluster-ip-range=10.254.0.0/31", "10.254.0.0/31 is too small"},
		{"no range", "--service-cluster-ip-range=", "--service-cluster-ip-range is empty"},
		{"no pod network", "--allocate-node-cidrs", "--allocate-node-cidrs needs --cluster-cidr"},
		{"node larger than the network", "--allocate-node-cidrs --cluster-cidr=172.16.0.0/25", "--node-cidr-mask-size: a node cannot have a /24"},
		{"loopback", "--advertise-address=127.0.0.1", "--advertise-address 127.0.0.1: nodes cannot reach it"},
		{"inside the range", "--advertise-address=10.254.0.9", "contains the advertised address 10.254.0.9"},
		{"family", "--advertise-address=fd00::1", "of different families"},
		{"port", "--secure-port=70000", "--secure-port 70000"},
		{"missing certificate", "--tls-cert-file=/none.crt --tls-private-key-file=/none.key", "--tls-cert-file: open /none.crt: no such file"},
		{"certificate without key", "--tls-cert-file=" + dir + "/server.crt", "--tls-cert-file needs --tls-private-key-file"},
		{"key without certificate", "--tls-private-key-file=" + dir + "/server.key", "--tls-private-key-file needs --tls-cert-file"},
		{"foreign key", "--tls-cert-file=" + dir + "/server.crt --tls-private-key-file=" + dir + "/ca.key", "private key does not match public key"},
		{"no CA in it", "--client-ca-file=" + dir + "/known_tokens.csv", "--client-ca-file: read certificate"},
		{"missing tokens", "--token-auth-file=/none.csv", "--token-auth-file: open /none.csv: no such file"},
		{"node name", "--node-names=../evil", `--node-names: "../evil" is not a node name`},
		{"unknown plugin", "--admission-control=Frobnicate", `--admission-control: no admission plugin is called "Frobnicate"`},
		{"plugin without API", "--enable-admission-plugins=RuntimeClass", "RuntimeClass needs the API node.k8s.io"},
		{"both ways", "--admission-control=LimitRanger --enable-admission-plugins=Priority", "--admission-control excludes"},
		{"etcd URL", "--listen-client-urls=127.0.0.1:2379", "--listen-client-urls"},
		{"etcd URL scheme", "--listen-client-urls=unix:///run/x", `"unix:///run/x" is not like http://127.0.0.1:2379`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := parse(t, strings.Fields(tc.args)...)
			if err == nil {
				_, err = o.plan()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
		})
	}
}

func TestListenURLs(t *testing.T) {
	for _, tc := range []struct{ args, endpoint string }{
		{"", "http://127.0.0.1:2379"},
		{"--listen-client-urls=http://172.17.42.30:2379", "http://172.17.42.30:2379"},
		{"--listen-client-urls=http://172.17.42.30:2379,http://127.0.0.1:2380", "http://127.0.0.1:2380"},
		{"--listen-client-urls=http://0.0.0.0:2379", "http://127.0.0.1:2379"},
	} {
		o, err := parse(t, strings.Fields(tc.args)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, endpoint, err := o.listenURLs(); err != nil || endpoint != tc.endpoint {
			t.Errorf("%s: %q, %v, want %q", tc.args, endpoint, err, tc.endpoint)
		}
	}
}

func TestCluster(t *testing.T) {
	dir := articleFiles(t)
	a, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o, err := parse(t, article(dir)...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := o.cluster(a, false)
	if err != nil {
		t.Fatal(err)
	}
	// The article's certificate knows the server by name only, and is of the article's authority.
	if c.Server != "https://172.17.42.30:443" || c.TLSServerName != "kube-master" || strings.Count(string(c.CA), "BEGIN CERT") != 3 {
		t.Errorf("cluster %+v", c)
	}
	o.kube.SecureServing.BindAddress = net.IPv4(172, 17, 42, 31)
	if c, err = o.cluster(a, true); err != nil || c.Server != "https://172.17.42.31:443" || c.TLSServerName != "" {
		t.Errorf("cluster %+v, %v", c, err)
	}
}
