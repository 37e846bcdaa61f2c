// Package chaos injures a cluster in random order while its pods talk: kernel objects deleted and altered, agents killed, the lease store
// stopped, restored, cut off and fed nonsense. It measures what each repair takes and which packets are lost meanwhile, and has many hosts
// race for few leases.
//
// Floor 4, programs.
package chaos
