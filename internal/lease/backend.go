package lease

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Backend is the Backend object of the network configuration: how packets reach another host. Each field says which types
// read it; for the others it stays zero.
type Backend struct {
	Type string

	VNI      uint32 // vxlan, l2: 1 to 2^24-1, default 1
	Port     uint16 // vxlan, l2: UDP port, 0 the kernel's 8472; udp: 8285 unless given
	MTU      int    // vxlan, wireguard, l2: MTU of the underlay in bytes, 0 the interface's
	GBP      bool   // vxlan: group based policy extension
	Learning bool   // vxlan: the device learns addresses from packets

	DirectRouting bool // vxlan, ipip: no tunnel to hosts on the same link

	ListenPort          uint16 // wireguard: 51820 unless given
	ListenPortV6        uint16 // wireguard: 51821 unless given
	PSK                 string // wireguard: base64, 32 bytes; ipsec: at least 96 characters
	PersistentKeepalive int    // wireguard, seconds, 0 off; the JSON field is PersistentKeepaliveInterval
	Mode                string // wireguard: separate (default), auto, ipv4 or ipv6

	UDPEncap    bool   // ipsec
	ESPProposal string // ipsec

	PreStartupCommand, PostStartupCommand string // extension
	SubnetAddCommand, SubnetRemoveCommand string // extension
	ShutdownCommand                       string // extension
}

// backendFields lists the options of every type; a type that is not here is refused.
var backendFields = map[string][]string{
	VXLAN:     {"VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting"},
	L2:        {"VNI", "Port", "MTU"},
	UDP:       {"Port"},
	HostGW:    {},
	WireGuard: {"ListenPort", "ListenPortV6", "MTU", "PSK", "PersistentKeepaliveInterval", "Mode"},
	IPIP:      {"DirectRouting"},
	IPSec:     {"PSK", "UDPEncap", "ESPProposal"},
	Alloc:     {},
	Extension: {"PreStartupCommand", "PostStartupCommand", "SubnetAddCommand", "SubnetRemoveCommand", "ShutdownCommand"},
}

// backendTypes are the known types in the order errors list them.
var backendTypes = []string{VXLAN, HostGW, WireGuard, UDP, L2, IPIP, IPSec, Alloc, Extension}

func defaultBackend(kind string) Backend {
	b := Backend{Type: kind}
	switch kind {
	case VXLAN, L2:
		b.VNI = 1
	case UDP:
		b.Port = 8285
	case WireGuard:
		b.ListenPort, b.ListenPortV6, b.Mode = 51820, 51821, "separate"
	case IPSec:
		b.ESPProposal = "aes128gcm16-sha256-prfsha256-ecp256"
	}
	return b
}

// readBackend reads the Backend object. The type is matched without regard to case, as flannel does.
func readBackend(raw json.RawMessage, warn func(string, ...any)) (Backend, error) {
	o, err := readObject("Backend.", raw)
	if err != nil {
		return Backend{}, err
	}
	kind := ""
	o.string("Type", &kind)
	if o.err != nil {
		return Backend{}, o.err
	}
	known := strings.Join(backendTypes, ", ")
	if kind == "" {
		return Backend{}, fmt.Errorf("Backend.Type: missing: write one of %s", known)
	}
	fields, ok := backendFields[strings.ToLower(kind)]
	if !ok {
		return Backend{}, fmt.Errorf("Backend.Type: %q is not a backend: write one of %s", kind, known)
	}
	b := defaultBackend(strings.ToLower(kind))
	for _, name := range fields {
		readOption(o, name, &b)
	}
	if o.err == nil {
		o.err = b.check()
	}
	if o.err != nil {
		return Backend{}, o.err
	}
	for _, name := range o.unused() {
		warn("Backend.%s: backend %s has no such option, ignored", name, b.Type)
	}
	return b, nil
}

// readOption reads one option; a zero port is the default, as in flannel.
func readOption(o *object, name string, b *Backend) {
	flags := map[string]*bool{
		"GBP": &b.GBP, "Learning": &b.Learning, "DirectRouting": &b.DirectRouting, "UDPEncap": &b.UDPEncap,
	}
	texts := map[string]*string{
		"PSK": &b.PSK, "Mode": &b.Mode, "ESPProposal": &b.ESPProposal, "PreStartupCommand": &b.PreStartupCommand,
		"PostStartupCommand": &b.PostStartupCommand, "SubnetAddCommand": &b.SubnetAddCommand,
		"SubnetRemoveCommand": &b.SubnetRemoveCommand, "ShutdownCommand": &b.ShutdownCommand,
	}
	ports := map[string]*uint16{"Port": &b.Port, "ListenPort": &b.ListenPort, "ListenPortV6": &b.ListenPortV6}
	switch {
	case flags[name] != nil:
		o.bool(name, flags[name])
	case texts[name] != nil:
		o.string(name, texts[name])
	case ports[name] != nil:
		preset := *ports[name]
		integer(o, name, 0, 65535, ports[name])
		if *ports[name] == 0 {
			*ports[name] = preset
		}
	case name == "VNI":
		// flannel on Linux takes 0 as it stands; the kernel then makes a device no other VNI talks to.
		integer(o, name, 1, maxVNI, &b.VNI)
	case name == "MTU":
		integer(o, name, 0, 65535, &b.MTU)
	case name == "PersistentKeepaliveInterval":
		integer(o, name, 0, 65535, &b.PersistentKeepalive)
	}
}

// check judges the options that JSON types alone do not.
func (b Backend) check() error {
	if b.MTU != 0 && b.MTU < 576 {
		return fmt.Errorf("Backend.MTU: %d is below 576, the least an IPv4 host takes: write the underlay's MTU or leave it out", b.MTU)
	}
	switch b.Type {
	case WireGuard:
		if modes := []string{"separate", "auto", "ipv4", "ipv6"}; !slices.Contains(modes, b.Mode) {
			return fmt.Errorf("Backend.Mode: %q is not a mode: write one of %s", b.Mode, strings.Join(modes, ", "))
		}
		if raw, err := base64.StdEncoding.DecodeString(b.PSK); b.PSK != "" && (err != nil || len(raw) != 32) {
			return errors.New("Backend.PSK: not a wireguard key: write 32 bytes in base64, as \"wg genpsk\" prints them")
		}
	case IPSec:
		if len(b.PSK) < 96 {
			return fmt.Errorf("Backend.PSK: %d characters are too few: write at least 96", len(b.PSK))
		}
	}
	return nil
}
