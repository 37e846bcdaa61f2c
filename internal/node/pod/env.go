package pod

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"weft/internal/api"
)

// ErrMissing says that a ConfigMap, a Secret or a key of one does not exist; sources of Values wrap it.
var ErrMissing = errors.New("not found")

// Values is what a container's environment may refer to.
type Values struct {
	Pod       *corev1.Pod
	IPs       []netip.Addr
	HostIPs   []netip.Addr
	Services  []api.ServicePort
	ConfigMap func(name string) (map[string]string, error) // data of a ConfigMap in the pod's namespace
	Secret    func(name string) (map[string][]byte, error)
}

// vars is an environment under construction: later values of a name win, the first place stays.
type vars struct {
	names  []string
	values map[string]string
}

func (e *vars) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// environment returns the variables of a container: the services', then envFrom's, then env's with references resolved.
func environment(v *Values, c *corev1.Container) (*vars, error) {
	e := &vars{values: map[string]string{}}
	links := v.Pod.Spec.EnableServiceLinks == nil || *v.Pod.Spec.EnableServiceLinks
	serviceEnv(e, v.Services, v.Pod.Namespace, links)
	for _, from := range c.EnvFrom {
		if err := envFrom(e, v, &from); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		if err := envVar(e, v, c, &c.Env[i]); err != nil {
			return nil, fmt.Errorf("env %s: %w", c.Env[i].Name, err)
		}
	}
	return e, nil
}

func envFrom(e *vars, v *Values, from *corev1.EnvFromSource) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		got, err := v.ConfigMap(from.ConfigMapRef.Name)
		if err != nil && !absent(err, from.ConfigMapRef.Optional) {
			return fmt.Errorf("envFrom: %w", err)
		}
		data = got
	case from.SecretRef != nil:
		got, err := v.Secret(from.SecretRef.Name)
		if err != nil && !absent(err, from.SecretRef.Optional) {
			return fmt.Errorf("envFrom: %w", err)
		}
		for k, b := range got {
			data[k] = string(b)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(data)) {
		e.set(from.Prefix+k, data[k])
	}
	return nil
}

// absent says whether an error may be passed over: what is missing is optional.
func absent(err error, optional *bool) bool {
	return errors.Is(err, ErrMissing) && optional != nil && *optional
}

func envVar(e *vars, v *Values, c *corev1.Container, ev *corev1.EnvVar) error {
	if ev.ValueFrom == nil {
		e.set(ev.Name, Expand(ev.Value, e.values))
		return nil
	}
	value, skip, err := valueFrom(v, c, ev.ValueFrom)
	if err == nil && !skip {
		e.set(ev.Name, value)
	}
	return err
}

func valueFrom(v *Values, c *corev1.Container, from *corev1.EnvVarSource) (value string, skip bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = fieldRef(v, from.FieldRef.FieldPath)
	case from.ResourceFieldRef != nil:
		value, err = resourceRef(c, from.ResourceFieldRef)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := v.ConfigMap(ref.Name)
		value, ok := data[ref.Key]
		return keyRef(value, ok, err, "configmap", ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := v.Secret(ref.Name)
		value, ok := data[ref.Key]
		return keyRef(string(value), ok, err, "secret", ref.Name, ref.Key, ref.Optional)
	default:
		err = errors.New("valueFrom of a kind this node does not know: use fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef")
	}
	return value, false, err
}

func keyRef(value string, ok bool, err error, kind, name, key string, optional *bool) (string, bool, error) {
	if err == nil && !ok {
		err = fmt.Errorf("key %q of %s %q: %w", key, kind, name, ErrMissing)
	}
	if err != nil && absent(err, optional) {
		return "", true, nil
	}
	return value, false, err
}

// fieldRef resolves a field of the downward API.
func fieldRef(v *Values, path string) (string, error) {
	p := v.Pod
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return p.Labels[key], nil
		case "metadata.annotations":
			return p.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.podIP":
		return first(v.IPs), nil
	case "status.podIPs":
		return join(v.IPs), nil
	case "status.hostIP":
		return first(v.HostIPs), nil
	case "status.hostIPs":
		return join(v.HostIPs), nil
	}
	return "", fmt.Errorf("fieldRef %q is not a field the downward API gives to an environment", path)
}

// subscript splits "metadata.labels['key']".
func subscript(path string) (name, key string, ok bool) {
	name, rest, ok := strings.Cut(path, "['")
	if !ok {
		return "", "", false
	}
	key, ok = strings.CutSuffix(rest, "']")
	return name, key, ok
}

func first(ips []netip.Addr) string {
	if len(ips) == 0 {
		return ""
	}
	return ips[0].String()
}

func join(ips []netip.Addr) string {
	texts := make([]string, 0, len(ips))
	for _, a := range ips {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ",")
}

// resourceRef resolves a limit or request of the container itself, in units of its divisor, rounded up.
func resourceRef(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		return "", fmt.Errorf("resourceFieldRef of another container (%s) is not supported: name the container itself or none", ref.ContainerName)
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	q, ok := list[corev1.ResourceName(name)]
	if !ok {
		return "", fmt.Errorf("resourceFieldRef %q: the container has none: set it in resources", ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(ceilDiv(q.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceilDiv(q.Value(), divisor.Value()), 10), nil
}

func ceilDiv(a, b int64) int64 {
	if b < 1 {
		b = 1
	}
	return (a + b - 1) / b
}

// Expand replaces $(NAME) by the value of NAME, as in a container's command, args and env. $$ is a dollar sign; a reference to what
// is not there stays as it is.
func Expand(text string, values map[string]string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			return out.String() + text
		}
		out.WriteString(text[:i])
		text = text[i:]
		end := strings.IndexByte(text, ')')
		switch {
		case text[1] == '$':
			out.WriteByte('$')
			text = text[2:]
		case text[1] == '(' && end > 0:
			if value, ok := values[text[2:end]]; ok {
				out.WriteString(value)
			} else {
				out.WriteString(text[:end+1])
			}
			text = text[end+1:]
		default:
			out.WriteByte('$')
			text = text[1:]
		}
	}
}
