package topology

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"
)

// compare compares the comparable fields of netip types by value.
var compare = cmp.Exporter(func(reflect.Type) bool { return true })

func TestBuiltIn(t *testing.T) {
	for name, top := range map[string]Topology{"default": Default(), "walkthrough": Walkthrough(), "hosts only": HostsOnly(64)} {
		if err := top.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	conf, err := Default().NetConf()
	if err != nil || string(conf) != `{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}` {
		t.Errorf("net-conf: %s %v", conf, err)
	}
	empty, err := Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), empty, compare); diff != "" {
		t.Errorf("an empty file is not the default:\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	top, err := Parse([]byte(`
underlay: {subnet: 192.168.7.0/24, mtu: 9000}
hosts:
- {name: m, role: master}
- {name: a, address: 192.168.7.2}
- {name: b, subnet: 10.1.5.0/24}
- {name: c, role: plain}
cluster:
  network: 10.1.0.0/16
  proxyMode: userspace
  backend: {type: host-gw}
  securePort: 6443
  agentFlags: [--ip-masq=false]
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range top.Hosts {
		got = append(got, h.Name+" "+h.Address.String()+" "+string(h.Role))
	}
	want := []string{"m 192.168.7.3 master", "a 192.168.7.2 node", "b 192.168.7.4 node", "c 192.168.7.5 plain"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if top.Underlay.Gateway != addr("192.168.7.1") || top.Cluster.SecurePort != 6443 || top.Cluster.Attach != "routed" {
		t.Errorf("%+v", top)
	}
	seven, err := Parse([]byte("nodes: 7"))
	if err != nil || len(seven.Hosts) != 8 || seven.Hosts[7].Name != "kube-node7" || seven.Hosts[7].Address != addr("172.17.42.37") {
		t.Errorf("%v %+v", err, seven.Hosts)
	}
}

// TestErrors reads testdata/errors.txtar: pairs of a topology and the error it must give, word for word.
func TestErrors(t *testing.T) {
	a, err := txtar.ParseFile(filepath.Join("testdata", "errors.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Files) < 20 {
		t.Fatalf("%d cases", len(a.Files))
	}
	for _, f := range a.Files {
		text, want, found := strings.Cut(string(f.Data), "=> ")
		if !found {
			t.Fatalf("%s: no =>", f.Name)
		}
		_, err := Parse([]byte(text))
		if err == nil || err.Error() != strings.TrimSpace(want) {
			t.Errorf("%s:\n got %v\nwant %s", f.Name, err, want)
		}
	}
}

// FuzzTopology: what Parse takes is valid, and writing and reading it changes nothing.
func FuzzTopology(f *testing.F) {
	seeds, err := txtar.ParseFile(filepath.Join("testdata", "errors.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range seeds.Files {
		text, _, _ := strings.Cut(string(s.Data), "=> ")
		f.Add([]byte(text))
	}
	for _, top := range []Topology{Default(), Walkthrough(), HostsOnly(2)} {
		b, err := yaml.Marshal(top)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		top, err := Parse(data)
		if err != nil {
			if text := err.Error(); strings.Contains(text, "%!") {
				t.Errorf("error: %q", text)
			}
			return
		}
		if err := top.Validate(); err != nil {
			t.Fatalf("Parse took what Validate refuses: %v", err)
		}
		b, err := yaml.Marshal(top)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b)
		if err != nil {
			t.Fatalf("own output is refused: %v\n%s", err, b)
		}
		if diff := cmp.Diff(top, again, compare); diff != "" {
			t.Errorf("changed by writing and reading:\n%s", diff)
		}
	})
}
