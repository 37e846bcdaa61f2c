// Package flows holds the packet-flow table of the proxy modes: who sends what to which address of a service, which endpoints may get it,
// and whose address they see. Every row runs in both families, over TCP and UDP, in every mode (modes_test.go), three ways: explain over
// the planned rules, explain over the rules read back from the kernel, and packets really sent between network namespaces. All three
// must give what the table says (table_test.go).
//
// Floor 4, programs: tests only.
package flows
