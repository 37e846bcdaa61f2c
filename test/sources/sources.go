// Package sources proves the source-address contract (internal/masq/contract): a small cluster of network namespaces is programmed from the
// plans of its nodes, and every row is explained over these plans and sent for real.
//
// Floor 4, programs: tests only.
package sources
