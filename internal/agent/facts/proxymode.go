package facts

// ProxyMode is how services reach their endpoints.
type ProxyMode string

// The proxy modes.
const (
	Userspace ProxyMode = "userspace"
	NFTables  ProxyMode = "nftables"
	IPTables  ProxyMode = "iptables"
	// NoProxy leaves the services to another program, a kube-proxy: no rule, no listener and no connection tracking entry of theirs is made or
	// removed.
	NoProxy ProxyMode = "none"
)
