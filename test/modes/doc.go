// Package modes changes how services are served, on running nodes and under traffic: from one proxy mode to another, and from a real
// kube-proxy to weft and back.
package modes
