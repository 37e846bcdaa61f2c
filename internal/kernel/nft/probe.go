package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// Feature is something the kernel must have for the rules of a plan.
type Feature struct {
	Name   string // what it is for
	Config string // the kernel's configuration option, or the version that brought it
	Err    error  // what the kernel answers to it; nil: it is there
}

// String is the feature as one line.
func (f Feature) String() string {
	if f.Err == nil {
		return f.Name + ": yes"
	}
	return fmt.Sprintf("%s: no (%s): %v", f.Name, f.Config, f.Err)
}

// hashing is the name of the feature that consistent hashing needs.
const hashing = "hashing (weft.dev/balance: maglev)"

// probes are tables that need one feature each.
var probes = []struct{ name, config, chains string }{
	{"tables of family inet", "CONFIG_NF_TABLES_INET", ""},
	{"destination NAT", "CONFIG_NFT_NAT", "chain a {\n type nat hook prerouting priority -100; policy accept;\n" +
		"meta l4proto tcp dnat ip to 192.0.2.1:1\n meta l4proto tcp dnat ip6 to [2001:db8::1]:1\n}"},
	{"masquerading", "CONFIG_NFT_MASQ", "chain a {\n type nat hook postrouting priority 100; policy accept;\n masquerade fully-random\n}"},
	{"connection tracking", "CONFIG_NFT_CT", "chain a {\n ct state new accept\n ct status dnat accept\n}"},
	{"random numbers", "CONFIG_NFT_NUMGEN", "map m {\n typeof numgen random mod 65536 : verdict\n}\nchain a {\n numgen random mod 2 vmap @m\n}"},
	{hashing, "CONFIG_NFT_HASH", "map m {\n typeof numgen random mod 65536 : verdict\n}\n" +
		"chain a {\n jhash ip saddr mod 2 seed 1 vmap @m\n}"},
	{"address types", "CONFIG_NFT_FIB_INET", "chain a {\n fib daddr type local accept\n}"},
	{"rejecting", "CONFIG_NFT_REJECT_INET", "chain a {\n meta l4proto tcp reject with tcp reset\n reject with icmpx type port-unreachable\n}"},
	{"untracked packets", "CONFIG_NFT_CT", "chain a {\n type filter hook prerouting priority -300; policy accept;\n notrack\n}"},
	{"ranges in concatenations", "Linux 5.6", "set s {\n type ipv4_addr . inet_service\n flags interval\n}"},
	{"session affinity", "Linux 5.0", "map m {\n type ipv4_addr . ipv4_addr : ipv4_addr . inet_service\n flags dynamic,timeout\n" +
		"timeout 60s\n size 16\n}\nchain a {\n update @m { ip saddr . ip daddr : ip daddr . th dport }\n}"},
}

// Probe asks the kernel for all features. It changes nothing: the transactions are never committed. The error says that it can't be
// asked at all, for want of permission or of nf_tables.
func (c *Conn) Probe() ([]Feature, error) {
	return c.probe(func(string) bool { return true })
}

// Hashing asks the kernel for what consistent hashing needs; it loads the module when there is one. The error is as that of Probe.
func (c *Conn) Hashing() (Feature, error) {
	out, err := c.probe(func(name string) bool { return name == hashing })
	if err != nil {
		return Feature{}, err
	}
	return out[0], nil
}

func (c *Conn) probe(asked func(name string) bool) ([]Feature, error) {
	out := make([]Feature, 0, len(probes))
	for _, p := range probes {
		if !asked(p.name) {
			continue
		}
		t, err := nft.ParseTable("table inet weft-probe {\n" + p.chains + "\n}")
		if err != nil {
			return nil, fmt.Errorf("probe %s: %w", p.name, err)
		}
		f := Feature{Name: p.name, Config: p.config}
		if f.Err = c.Check(nft.Diff(t, nil)); errors.Is(f.Err, unix.EPERM) {
			return nil, fmt.Errorf("probe nf_tables: %w", f.Err)
		}
		out = append(out, f)
	}
	return out, nil
}

// Check asks the kernel whether it would take the ops. It changes nothing. The error is the first refusal.
func (c *Conn) Check(ops []nft.Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := units(ops)
	t := newBatch(c.seq+1, all)
	c.seq = t.seq
	for _, err := range t.bad {
		return err
	}
	t.b = t.b[:len(t.b)-unix.SizeofNlMsghdr-nfgenmsg] // without its end the kernel throws the transaction away
	if err := c.drain(); err != nil {
		return err
	}
	if err := c.send(t.b); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	bad, err := c.answers(t)
	if err != nil {
		return err
	}
	for i := range all {
		if bad[i] != nil {
			return bad[i]
		}
	}
	return nil
}
