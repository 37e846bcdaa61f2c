package dockeropts

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/agent/rundir"
)

// hold is an agent that says what it holds.
func hold(t *testing.T, dir, subnet string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, rundir.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"subnet": %q}`, subnet)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

const (
	subnetV4 = "FLANNEL_NETWORK=172.16.0.0/12\nFLANNEL_SUBNET=172.16.28.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	subnetV6 = "FLANNEL_IPV6_NETWORK=fd10::/48\nFLANNEL_IPV6_SUBNET=fd10:0:0:1c::1/64\n"
)

// dockerOpts runs the command in a directory of its own.
func dockerOpts(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	c := Command()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(append([]string{"-f", filepath.Join(dir, "subnet.env"), "--run-dir", dir}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func subnetFile(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "subnet.env"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDockerOpts(t *testing.T) {
	for _, x := range []struct {
		file string
		args []string
		want string
	}{
		{subnetV4, nil, `DOCKER_OPT_BIP="--bip=172.16.28.1/24"
DOCKER_OPT_IPMASQ="--ip-masq=false"
DOCKER_OPT_MTU="--mtu=1450"
DOCKER_OPTS=" --bip=172.16.28.1/24 --ip-masq=false --mtu=1450"
`},
		{strings.ReplaceAll(subnetV4, "=true", "=false"), []string{"-c", "-k", "OPTS"}, "OPTS=\" --bip=172.16.28.1/24 --ip-masq=true --mtu=1450\"\n"},
		{subnetV4, []string{"-i", "-m"}, "DOCKER_OPT_BIP=\"--bip=172.16.28.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n"},
		{subnetV4 + subnetV6, []string{"-o", "flags"}, "--bip=172.16.28.1/24 --ip-masq=false --mtu=1450 --ipv6=true --fixed-cidr-v6=fd10:0:0:1c::/64\n"},
		{subnetV4 + subnetV6, []string{"-o", "json"}, `{
  "bip": "172.16.28.1/24",
  "mtu": 1450,
  "ip-masq": false,
  "ipv6": true,
  "fixed-cidr-v6": "fd10:0:0:1c::/64"
}
`},
		{subnetV4, []string{"-o", "json", "-m"}, "{\n  \"bip\": \"172.16.28.1/24\",\n  \"mtu\": 1450\n}\n"},
	} {
		dir := subnetFile(t, x.file)
		got, err := dockerOpts(t, dir, x.args...)
		if err != nil || got != x.want {
			t.Errorf("%v: %v\n%s\nwant\n%s", x.args, err, got, x.want)
		}
		// To a file it is the same, and a shell reads the variables.
		to := filepath.Join(dir, "out.env")
		if _, err := dockerOpts(t, dir, append(x.args, "-d", to)...); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(to); err != nil || string(text) != x.want {
			t.Errorf("%v: file %q %v", x.args, text, err)
		}
		if x.args == nil {
			out, err := exec.Command("sh", "-c", ". "+to+"; echo $DOCKER_OPTS").Output()
			if err != nil || string(out) != "--bip=172.16.28.1/24 --ip-masq=false --mtu=1450\n" {
				t.Errorf("a shell reads %q %v", out, err)
			}
		}
	}
}

// TestDockerOptsIsFresh: a file of an earlier lease is not taken for what the agent holds now.
func TestDockerOptsIsFresh(t *testing.T) {
	for _, x := range []struct {
		name, file, held string // held "-": no agent runs
		args             []string
		want             string // part of the error; "" none
	}{
		{"the agent's own", subnetV4, "172.16.28.0/24", nil, ""},
		{"no agent runs", subnetV4, "-", nil, ""},
		{"an agent without a subnet yet", subnetV4, "", nil, ""},
		{"an old file", subnetV4, "172.16.99.0/24", nil, "it says 172.16.28.0/24, but the agent holds 172.16.99.0/24: it is older than the lease"},
		{"no file and no agent", "", "-", nil, "not there: start weft agent on this host"},
		{"no file yet", "", "", nil, "the agent that runs here has no subnet: wait for it"},
		{"another file", "", "172.16.28.0/24", nil, "not there, but the agent holds 172.16.28.0/24: name the agent's --subnet-file"},
		{"no IPv4", subnetV6, "-", nil, "FLANNEL_SUBNET is missing"},
		{"a broken file", "FLANNEL_MTU=x\n", "-", nil, `line 1: FLANNEL_MTU: "x" is not an MTU`},
		{"bad output", subnetV4, "-", []string{"-o", "yaml"}, "--output=yaml: want env or flags or json"},
		{"bad key", subnetV4, "-", []string{"-k", "DOCKER OPTS"}, "--key=DOCKER OPTS: want the name of a shell variable"},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := subnetFile(t, x.file)
			if x.file == "" {
				if err := os.Remove(filepath.Join(dir, "subnet.env")); err != nil {
					t.Fatal(err)
				}
			}
			if x.held != "-" {
				hold(t, dir, x.held)
			}
			_, err := dockerOpts(t, dir, x.args...)
			if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
				t.Errorf("%v, want %q", err, x.want)
			}
		})
	}
}
