// Package docker puts containers of a real dockerd on several hosts into one network: weft leases the subnets and carries the packets,
// "weft docker-opts" tells dockerd which subnet is its own.
//
// Floor 4, programs.
package docker
