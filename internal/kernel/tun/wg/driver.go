package wg

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// control is what is asked of the kernel driver.
type control interface {
	Device(name string) (*wgtypes.Device, error)
	ConfigureDevice(name string, c wgtypes.Config) error
}

// KernelDriver reports whether the kernel has WireGuard: asking for its generic netlink family loads the module where there is one.
func KernelDriver() bool {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return false
	}
	defer c.Close()
	_, err = c.GetFamily(unix.WG_GENL_NAME)
	return err == nil
}

// read returns what the kernel's device has, in our terms, and whether its private key and preshared keys are right.
func read(c control, name string, key, psk Key) (have config, keyRight bool, err error) {
	d, err := c.Device(name)
	if err != nil {
		return config{}, false, fmt.Errorf("read WireGuard device %s: %w", name, err)
	}
	have = config{port: uint16(d.ListenPort), peers: make(map[Key]peer, len(d.Peers))}
	for _, p := range d.Peers {
		q := peer{key: p.PublicKey, keepalive: int(p.PersistentKeepaliveInterval / time.Second)}
		if p.PresharedKey != psk {
			q.keepalive = -1 // so that it differs
		}
		if p.Endpoint != nil {
			a, _ := netip.AddrFromSlice(p.Endpoint.IP)
			q.endpoint = netip.AddrPortFrom(a.Unmap(), uint16(p.Endpoint.Port))
		}
		for _, n := range p.AllowedIPs {
			a, _ := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			q.allowed = append(q.allowed, netip.PrefixFrom(a.Unmap(), ones))
		}
		slices.SortFunc(q.allowed, comparePrefix)
		have.peers[q.key] = q
	}
	return have, d.PrivateKey == key, nil
}

// configureKernel applies a change to the kernel's device.
func configureKernel(c control, name string, key Key, keyRight bool, ch change, psk Key) error {
	cfg := wgtypes.Config{Peers: make([]wgtypes.PeerConfig, 0, len(ch.set)+len(ch.del))}
	if !keyRight {
		cfg.PrivateKey = &key
	}
	if ch.port != 0 {
		port := int(ch.port)
		cfg.ListenPort = &port
	}
	for _, k := range ch.del {
		cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{PublicKey: k, Remove: true})
	}
	for _, p := range ch.set {
		keepalive := time.Duration(p.keepalive) * time.Second
		pc := wgtypes.PeerConfig{
			PublicKey: p.key, PresharedKey: &psk, Endpoint: net.UDPAddrFromAddrPort(p.endpoint), PersistentKeepaliveInterval: &keepalive,
			ReplaceAllowedIPs: !p.kept,
		}
		for _, a := range p.allowed {
			if p.kept {
				break
			}
			pc.AllowedIPs = append(pc.AllowedIPs, net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())})
		}
		cfg.Peers = append(cfg.Peers, pc)
	}
	if err := c.ConfigureDevice(name, cfg); err != nil {
		return fmt.Errorf("configure WireGuard device %s: %w", name, err)
	}
	return nil
}
