package services

import (
	"errors"
	"time"

	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
)

// listenError says which listeners of the relay could not be opened: those services are not served, the others are.
type listenError struct{ error }

// Unwrap returns what went wrong.
func (e *listenError) Unwrap() error { return e.error }

// single reports whether all that went wrong is about single objects, the rest being in force.
func single(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !single(e) {
				return false
			}
		}
		return true
	}
	_, nft := errors.AsType[*kernelnft.Refused](err)
	_, xt := errors.AsType[*kernelxt.RefusedError](err)
	_, listener := errors.AsType[*listenError](err)
	return err == nil || nft || xt || listener
}

// Updated is when the rules were last as planned, and whether they are, or were not long ago: see syncs.Patience.
func (p *Loop) Updated() (at time.Time, healthy bool) {
	return p.syncs.Updated(), p.syncs.Healthy(time.Now())
}
