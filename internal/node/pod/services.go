package pod

import (
	"net"
	"strconv"
	"strings"

	"weft/internal/api"
)

// serviceEnv sets the variables by which a container finds services: of its own namespace when links is set, and always the API's own.
func serviceEnv(e *vars, services []api.ServicePort, namespace string, links bool) {
	for i := range services {
		s := &services[i]
		master := s.Name.Namespace == "default" && s.Name.Name == "kubernetes"
		if len(s.ClusterIPs) == 0 || !master && (!links || s.Name.Namespace != namespace) {
			continue
		}
		setService(e, s)
	}
}

// setService sets one port's variables. The ones without a port name are the service's first port's.
func setService(e *vars, s *api.ServicePort) {
	prefix := envName(s.Name.Name)
	host, port, proto := s.ClusterIPs[0].String(), strconv.Itoa(int(s.Port)), string(s.Protocol)
	url := strings.ToLower(proto) + "://" + net.JoinHostPort(host, port)
	if _, seen := e.values[prefix+"_SERVICE_HOST"]; !seen {
		e.set(prefix+"_SERVICE_HOST", host)
		e.set(prefix+"_SERVICE_PORT", port)
		e.set(prefix+"_PORT", url)
	}
	if s.Name.Port != "" {
		e.set(prefix+"_SERVICE_PORT_"+envName(s.Name.Port), port)
	}
	link := prefix + "_PORT_" + port + "_" + proto
	e.set(link, url)
	e.set(link+"_PROTO", strings.ToLower(proto))
	e.set(link+"_PORT", port)
	e.set(link+"_ADDR", host)
}

func envName(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
