// Package scale measures and tests services by the thousand: the real node agent, as it is installed, against an API that serves as many
// services and EndpointSlices as are wanted, and sees every change of them through a watch. That API is the tests' own: a real server
// takes minutes to be filled with 50,000 services. It speaks protobuf and streams lists as the real one does.
package scale
