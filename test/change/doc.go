// Package change holds the tests of changes of a running network's configuration: three hosts of a lab, datagrams between all of their
// pods every few milliseconds, and not one may be lost.
package change
