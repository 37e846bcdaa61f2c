package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"weft/internal/api"
)

// AnnotationPrefix is flannel's default prefix of the node annotations (--kube-annotation-prefix), with the slash.
const AnnotationPrefix = "flannel.alpha.coreos.com/"

// annotationPrefix is what Kubernetes lets an annotation's key be: a domain, a slash, and the beginning of a name.
var annotationPrefix = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?/([A-Za-z0-9][A-Za-z0-9_.-]*-)?$`)

// ParseAnnotationPrefix reads a prefix as flannel does: without a slash one is appended, and to what follows a slash a dash.
func ParseAnnotationPrefix(text string) (string, error) {
	p := text
	if !strings.Contains(p, "/") {
		p += "/"
	}
	if !strings.HasSuffix(p, "/") && !strings.HasSuffix(p, "-") {
		p += "-"
	}
	if !annotationPrefix.MatchString(p) || len(p) > 253 {
		return "", fmt.Errorf("%q is not the beginning of an annotation's key: want a domain, such as flannel.alpha.coreos.com, or one with a name, such as "+
			"flannel.example.com/blue", excerpt(text))
	}
	return p, nil
}

// AlsoAnnotation is weft's own: further kinds by which the node receives ([]Kind). flannel does not look at it.
const AlsoAnnotation = "weft.dev/overlay-also"

// The annotation names after the prefix.
const (
	annManaged     = "kube-subnet-manager"
	annType        = "backend-type"
	annData        = "backend-data"
	annV6Data      = "backend-v6-data"
	annPublicIP    = "public-ip"
	annPublicIPv6  = "public-ipv6"
	annOverwrite   = "public-ip-overwrite"
	annOverwriteV6 = "public-ipv6-overwrite"
	annNodeIP      = "node-public-ip"
	annNodeIPv6    = "node-public-ipv6"
)

// ErrNotManaged says that a node has no lease: its annotation kube-subnet-manager is not "true".
var ErrNotManaged = errors.New("node is not part of the network: annotation " + annManaged + ` is not "true"`)

// Annotations returns what a node says of its lease: all annotations the backend needs, ready for a merge patch. nil values
// never occur; a backend without data says "null", as flannel writes it.
func Annotations(l api.Lease, prefix string) (map[string]string, error) {
	four, six, err := backendData(l)
	if err != nil {
		return nil, fmt.Errorf("lease of node %s: %w", l.Node, err)
	}
	a := map[string]string{prefix + annManaged: "true", prefix + annType: l.BackendType}
	put := func(name, text string) {
		if text == "" {
			text = "null"
		}
		a[prefix+name] = text
	}
	if l.Subnet.IsValid() {
		put(annData, string(four))
		if l.PublicIP.IsValid() {
			a[prefix+annPublicIP] = l.PublicIP.String()
		}
	}
	if l.SubnetV6.IsValid() {
		put(annV6Data, string(six))
		if l.PublicIPv6.IsValid() {
			a[prefix+annPublicIPv6] = l.PublicIPv6.String()
		}
	}
	if l.Also != "" {
		a[AlsoAnnotation] = l.Also
	}
	return a, nil
}

// FromNode reads a node's lease: the subnets are its podCIDRs, the rest its annotations. ErrNotManaged says that there is
// none; every other error names the node, the annotation and the value.
func FromNode(n api.Node, prefix string) (api.Lease, error) {
	get := func(name string) string { return n.Annotations[prefix+name] }
	if get(annManaged) != "true" {
		return api.Lease{}, ErrNotManaged
	}
	l := api.Lease{Node: n.Name, BackendType: get(annType)}
	fail := func(name string, err error) (api.Lease, error) {
		return api.Lease{}, fmt.Errorf("node %s: annotation %s%s: %w", n.Name, prefix, name, err)
	}
	var err error
	if l.Subnet, l.SubnetV6, err = podCIDRs(n.PodCIDRs); err != nil {
		return api.Lease{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	if l.PublicIP, err = optionalPublic(get(annPublicIP), false); err != nil {
		return fail(annPublicIP, err)
	}
	if l.PublicIPv6, err = optionalPublic(get(annPublicIPv6), true); err != nil {
		return fail(annPublicIPv6, err)
	}
	if err := l4(get(annData), &l); err != nil {
		return fail(annData, err)
	}
	if err := l6(get(annV6Data), &l); err != nil {
		return fail(annV6Data, err)
	}
	if text := n.Annotations[AlsoAnnotation]; text != "" && text != "null" {
		if l.Also, err = readKinds([]byte(text)); err != nil {
			return api.Lease{}, fmt.Errorf("node %s: annotation %s: %w", n.Name, AlsoAnnotation, err)
		}
	}
	if err := complete(l); err != nil {
		return api.Lease{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return l, nil
}

func l4(text string, l *api.Lease) error {
	if !l.Subnet.IsValid() || text == "" || text == "null" {
		return nil
	}
	return readData([]byte(text), "", l.BackendType, &l.VNI, &l.VTEPMAC, &l.WGKey, &l.WGPort)
}

func l6(text string, l *api.Lease) error {
	if !l.SubnetV6.IsValid() || text == "" || text == "null" {
		return nil
	}
	var six api.Lease
	err := readData([]byte(text), "", l.BackendType, &six.VNI, &l.VTEPMACv6, &six.WGKey, &l.WGPortV6)
	if l.VNI == 0 {
		l.VNI = six.VNI
	}
	if l.WGKey == "" {
		l.WGKey = six.WGKey
	}
	return err
}

// podCIDRs sorts node.spec.podCIDRs by family: at most one of each.
func podCIDRs(all []netip.Prefix) (v4, v6 netip.Prefix, err error) {
	for _, p := range all {
		to := &v4
		if p.Addr().Is6() {
			to = &v6
		}
		switch {
		case !p.IsValid() || p != p.Masked():
			return v4, v6, fmt.Errorf("spec.podCIDRs: %s is not a network address: write %s", p, p.Masked())
		case to.IsValid():
			return v4, v6, fmt.Errorf("spec.podCIDRs: %s and %s are of one family: keep one", *to, p)
		}
		*to = p
	}
	if !v4.IsValid() && !v6.IsValid() {
		return v4, v6, errors.New("spec.podCIDRs: empty: let the node IPAM controller allocate them (--allocate-node-cidrs)")
	}
	return v4, v6, nil
}

func optionalPublic(text string, v6 bool) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return parsePublic(text, v6)
}

// Public is what a node's annotations ask of the host's own addresses. A zero address asks nothing.
type Public struct {
	Publish, PublishV6 netip.Addr // public-ip-overwrite: told to the others instead of the host's address
	Use, UseV6         netip.Addr // node-public-ip: read at start, as --public-ip
}

// PublicFromNode reads the annotations a user may set on a node to choose its public address.
func PublicFromNode(n api.Node, prefix string) (Public, error) {
	var p Public
	for _, f := range []struct {
		name string
		v6   bool
		to   *netip.Addr
	}{
		{annOverwrite, false, &p.Publish},
		{annOverwriteV6, true, &p.PublishV6},
		{annNodeIP, false, &p.Use},
		{annNodeIPv6, true, &p.UseV6},
	} {
		a, err := optionalPublic(n.Annotations[prefix+f.name], f.v6)
		if err != nil {
			return Public{}, fmt.Errorf("node %s: annotation %s%s: %w", n.Name, prefix, f.name, err)
		}
		*f.to = a
	}
	return p, nil
}
