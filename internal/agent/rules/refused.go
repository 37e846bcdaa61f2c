package rules

import (
	"errors"
	"fmt"

	kernelnft "weft/internal/kernel/nft"
)

// Attributed puts the name of the service, or of what else wants it, before each object that the kernel refused. alone reports whether
// refused objects are all that went wrong: then the rest of the table is as planned.
func (t *TablePlan) Attributed(err error) (out error, alone bool) {
	if err == nil || t.Merge == nil {
		return err, err == nil
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	alone = true
	for i, e := range all {
		r, ok := errors.AsType[*kernelnft.Refused](e)
		if !ok {
			alone = false
			continue
		}
		if owner := t.Merge.OwnerOf(r.Op); owner != "" {
			all[i] = fmt.Errorf("%s: refused by the kernel and left out, the rest is programmed: %w", owner, r)
		}
	}
	return errors.Join(all...), alone
}
