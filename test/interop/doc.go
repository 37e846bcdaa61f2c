// Package interop runs real flanneld and weft agents in one network: traffic both ways for every backend they share, late joins and
// leaves, a node that changes from flannel to weft and back without a lost packet, and what each of them heals. The steps of a
// change are the command lines of docs/migration/from-flannel.md.
//
// Floor 4, programs.
package interop
