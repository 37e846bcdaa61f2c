package rules

import (
	"errors"
	"fmt"
	"iter"
	"maps"

	kernelnft "weft/internal/kernel/nft"
	"weft/internal/nft"
)

// Attributed puts the name of the service, or of what else wants it, before each object that the kernel refused. alone reports whether
// refused objects are all that went wrong: then the rest of the table is as planned. whole says that all that differs from the plan was tried.
func (t *TablePlan) Attributed(err error, whole bool) (out error, alone bool) {
	if whole && err == nil {
		t.refused = refusals{}
	}
	if err == nil || t.Merge == nil {
		return err, err == nil
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	alone = true
	var now refusals
	for i, e := range all {
		r, ok := errors.AsType[*kernelnft.Refused](e)
		if !ok {
			alone = false
			continue
		}
		if owner := t.Merge.OwnerOf(r.Op); owner != "" {
			all[i] = fmt.Errorf("%s: refused by the kernel and left out, the rest is programmed: %w", owner, r)
		}
		now.add(r.Op, all[i])
	}
	if whole && alone {
		t.refused = refusals{}
	}
	t.refused.join(now)
	return errors.Join(all...), alone
}

// refusals are the objects that the plan has and the kernel does not, by name.
type refusals struct {
	objects map[string]bool
	errs    []error
}

func (r *refusals) add(op nft.Op, err error) {
	if r.objects == nil {
		r.objects = map[string]bool{}
	}
	for name := range objects(op) {
		r.objects[name] = true
	}
	r.errs = append(r.errs, err)
}

// join adds those of a later step.
func (r *refusals) join(more refusals) {
	if r.objects == nil {
		r.objects = map[string]bool{}
	}
	maps.Copy(r.objects, more.objects)
	r.errs = append(r.errs, more.errs...)
}

// objects yields the names of what an op is about, each element by itself.
func objects(op nft.Op) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch op.Kind {
		case nft.KindElements:
			for _, e := range op.Set.Elements {
				if !yield("element " + op.Set.Name + " " + string(e.Key) + string(e.KeyEnd)) {
					return
				}
			}
		case nft.KindSet:
			yield("set " + op.Set.Name)
		case nft.KindChain, nft.KindRules:
			yield("chain " + op.Chain.Name)
		case nft.KindTable:
			yield("table")
		}
	}
}

// Refused are the objects that the kernel refused and the plan still has, nil where there are none.
func (t *TablePlan) Refused() error { return errors.Join(t.refused.errs...) }

// RetriesRefused reports whether the ops are about one of these objects. It is not in the kernel as they take for granted, so the table must
// be read and compared.
func (t *TablePlan) RetriesRefused(ops []nft.Op) bool {
	if len(t.refused.errs) == 0 {
		return false
	}
	for _, op := range ops {
		for name := range objects(op) {
			if t.refused.objects[name] || name == "table" {
				return true
			}
		}
	}
	return false
}
