package replay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"
	"time"
)

// create puts a manifest on the master and creates its objects, as the article does.
func (r *run) create(name string) error {
	text, err := manifests.ReadFile("manifests/" + name)
	if err != nil {
		return err
	}
	file := path.Join("/tmp", name)
	if err := r.lab.WriteFile(r.ctx, master, file, text); err != nil {
		return err
	}
	r.check(strings.Contains(r.kubectl("create", "-f", file), "created"), "created from %s", name)
	return nil
}

// pods returns the pods of a label, with their addresses, that are Ready and not being deleted.
func (r *run) pods(label string) []pod {
	out, err := r.lab.Kubectl(r.ctx, "get", "pods", "-l", label, "-o", "json")
	if err != nil {
		return nil
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name, DeletionTimestamp string }
			Spec     struct{ NodeName string }
			Status   struct {
				PodIP      string
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if json.Unmarshal([]byte(out), &list) != nil {
		return nil
	}
	var pods []pod
	for _, i := range list.Items {
		for _, c := range i.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" && i.Metadata.DeletionTimestamp == "" {
				pods = append(pods, pod{i.Metadata.Name, i.Status.PodIP, i.Spec.NodeName})
			}
		}
	}
	return pods
}

// learn waits for two nginx pods, one on each node, and remembers them.
func (r *run) learn() error {
	return r.wait("two nginx pods Ready, one on each node", 30*time.Second, func() bool {
		clear(r.facts.nginx)
		for _, p := range r.pods("app=my-nginx") {
			r.facts.nginx[p.node] = p
		}
		return len(r.facts.nginx) == 2
	})
}

func rowReplicationController(r *run) error {
	// A new node is tainted until the control plane has seen it ready: pods created before go to the other one.
	if err := r.wait("nodes without taints", 20*time.Second, func() bool {
		out, err := r.lab.Kubectl(r.ctx, "get", "nodes", "-o", "jsonpath={.items[*].spec.taints}")
		return err == nil && strings.TrimSpace(out) == ""
	}); err != nil {
		return err
	}
	if err := r.create("replication.yml"); err != nil {
		return err
	}
	if err := r.create("sshd.yml"); err != nil {
		return err
	}
	if err := r.learn(); err != nil {
		return err
	}
	err := r.wait("sshd-2 Ready", 20*time.Second, func() bool {
		for _, p := range r.pods("app=sshd") {
			if p.name == "sshd-2" {
				r.facts.sshd = p
			}
		}
		return r.facts.sshd.ip != ""
	})
	if err != nil {
		return err
	}
	out := r.kubectl("get", "rc")
	r.check(regexp.MustCompile(`nginx +2 +2 +2`).MatchString(out), "2 desired, 2 current, 2 ready")
	out = r.kubectl("describe", "replicationcontrollers/nginx")
	r.has(out, "2 current / 2 desired", "2 Running / 0 Waiting / 0 Succeeded / 0 Failed", "SuccessfulCreate", "Created pod: nginx-")
	r.kubectl("get", "pods", "-o", "wide")
	r.check(r.facts.nginx[node1].ip != "" && r.facts.nginx[node2].ip != "", "spread over the nodes")
	victim := r.facts.nginx[node1].name
	r.kubectl("delete", "pod", victim, "--wait=false")
	if err := r.wait("the replacement", 30*time.Second, func() bool {
		clear(r.facts.nginx)
		for _, p := range r.pods("app=my-nginx") {
			r.facts.nginx[p.node] = p
		}
		return len(r.facts.nginx) == 2 && r.facts.nginx[node1].name != victim
	}); err != nil {
		return err
	}
	r.check(true, "%s was replaced by %s", victim, r.facts.nginx[node1].name)
	return nil
}

func rowService(r *run) error {
	if err := r.create("service.yml"); err != nil {
		return err
	}
	return showService(r)
}

// showService prints and checks the service; it learns the VIP.
func showService(r *run) error {
	out := r.kubectl("get", "services")
	r.check(lineWith(out, "kubernetes", "10.254.0.1", "443/TCP") != "", "kubernetes is 10.254.0.1")
	f := strings.Fields(lineWith(out, "my-nginx-service", "8080/TCP"))
	if len(f) < 3 {
		return fmt.Errorf("my-nginx-service is not in the table")
	}
	vip, err := netip.ParseAddr(f[2])
	if err != nil {
		return fmt.Errorf("address of my-nginx-service: %w", err)
	}
	r.check(netip.MustParsePrefix("10.254.0.0/16").Contains(vip), "my-nginx-service has %s of 10.254.0.0/16", vip)
	r.facts.vip = vip.String()
	endpoints := func() bool {
		out, err := r.lab.Kubectl(r.ctx, "get", "endpoints", "my-nginx-service", "-o", "yaml")
		return err == nil && strings.Contains(out, r.facts.nginx[node1].ip) && strings.Contains(out, r.facts.nginx[node2].ip)
	}
	if err := r.wait("both endpoints", 10*time.Second, endpoints); err != nil {
		return err
	}
	out = r.kubectl("describe", "services/my-nginx-service")
	r.has(out, "app=my-nginx", r.facts.vip, "8080/TCP", r.facts.nginx[node1].ip+":80", r.facts.nginx[node2].ip+":80")
	return nil
}

var redirect = regexp.MustCompile(`-A KUBE-PORTALS-CONTAINER -d (\S+)/32 -p tcp -m comment --comment "default/my-nginx-service:" -m tcp --dport 8080 -j REDIRECT --to-ports (\d+)`)

func rowRules(r *run) error {
	for _, n := range []string{node1, node2} {
		err := r.wait("the rules on "+n, 10*time.Second, func() bool {
			out, err := r.quiet(n, "iptables-save -t nat")
			return err == nil && redirect.MatchString(out)
		})
		if err != nil {
			return err
		}
		out := r.sh(n, "iptables-save -t nat")
		const comment = `-m comment --comment "handle ClusterIPs; NOTE: this must be before the NodePort rules" -j `
		r.has(out, "-A PREROUTING "+comment+"KUBE-PORTALS-CONTAINER", "-A OUTPUT "+comment+"KUBE-PORTALS-HOST")
		m := redirect.FindStringSubmatch(out)
		r.check(m[1] == r.facts.vip, "REDIRECT of %s:8080 to port %s", m[1], m[2])
		r.facts.ports[n] = m[2]
		r.has(out, fmt.Sprintf(`-A KUBE-PORTALS-HOST -d %s/32 -p tcp -m comment --comment "default/my-nginx-service:" -m tcp --dport 8080 -j DNAT --to-destination %s:%s`, m[1], addressOf[n], m[2]))
		out = r.sh(n, "ss -ltnp sport = :"+m[2])
		r.check(lineWith(out, ":"+m[2], `"weft"`) != "", "the agent listens on %s", m[2])
	}
	return nil
}
