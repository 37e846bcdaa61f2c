// Package bench measures the programs as they are installed: the real node agent with an etcd full of leases, beside flannel's daemon
// where there is one, and the path of packets between pods beside the one that flannel builds. Its benchmarks run in namespaces of
// their own; "make bench" runs them all and holds them against their budgets.
package bench
