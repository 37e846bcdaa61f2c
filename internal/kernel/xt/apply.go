package xt

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"weft/internal/xt"
)

// wait is how long iptables-restore waits for the lock of another iptables, in seconds.
const wait = "5"

// maxRefused bounds how many refused rules Apply leaves out before it gives up.
const maxRefused = 32

// RefusedError says that iptables or the kernel refused one op.
type RefusedError struct {
	Op     xt.Op
	Reason string
}

// Error names the command and the reason.
func (e *RefusedError) Error() string { return "apply " + e.Op.String() + ": refused: " + e.Reason }

// Apply does the ops, those of a table in one transaction. Rules of our chains that are refused are left out and the rest is applied;
// the error then holds a RefusedError for each. Any other failure leaves the table as it was, unless netlink has no room for all of
// it at once (tooLong), when it's done in parts, one after the other. Many new chains come in transactions of their own, before what
// leads to them.
func (k Kernel) Apply(ctx context.Context, ops []xt.Op) error {
	var errs []error
	for _, v6 := range []bool{false, true} {
		for _, table := range tablesOf(ops, v6) {
			list := [][]xt.Op{table}
			if k.inParts(ctx, table) {
				list = parts(table)
			}
			for _, ops := range list {
				if len(ops) == 0 {
					continue
				}
				refused, err := k.applyTable(ctx, v6, ops)
				if errs = append(append(errs, refused...), err); err != nil {
					break // what comes next may lead to what is not there
				}
			}
		}
	}
	return errors.Join(errs...)
}

// tablesOf splits the ops of one family by table.
func tablesOf(ops []xt.Op, v6 bool) [][]xt.Op {
	var out [][]xt.Op
	for _, o := range ops {
		if o.V6 != v6 {
			continue
		}
		i := slices.IndexFunc(out, func(t []xt.Op) bool { return t[0].Table == o.Table })
		if i < 0 {
			out = append(out, nil)
			i = len(out) - 1
		}
		out[i] = append(out[i], o)
	}
	return out
}

// applyTable does the ops of one table. It returns what was refused and left out, and what stopped it.
func (k Kernel) applyTable(ctx context.Context, v6 bool, ops []xt.Op) (refused []error, err error) {
	for len(refused) <= maxRefused {
		err := k.restore(ctx, v6, ops)
		if err == nil {
			return refused, nil
		}
		if half := len(ops) / 2; half > 0 && tooLong(err) {
			first, err := k.applyTable(ctx, v6, ops[:half])
			if refused = append(refused, first...); err != nil {
				return refused, err
			}
			second, err := k.applyTable(ctx, v6, ops[half:])
			return append(refused, second...), err
		}
		i, reason := refusedOp(ops, err)
		if i < 0 {
			return refused, fmt.Errorf("apply rules of table %s: %w", ops[0].Table, err)
		}
		refused = append(refused, &RefusedError{ops[i], reason})
		if !dispensable(ops[i]) {
			return refused, fmt.Errorf("apply rules of table %s: nothing changed", ops[0].Table)
		}
		if ops = slices.Delete(slices.Clone(ops), i, i+1); len(ops) == 0 {
			return refused, nil
		}
	}
	return refused, fmt.Errorf("apply rules of table %s: nothing changed: more than %d are refused", ops[0].Table, maxRefused)
}

// dispensable reports whether the rest makes sense without the op: a rule of one of our chains is one service, a jump is all of them.
func dispensable(o xt.Op) bool {
	return (o.Verb == xt.Append || o.Verb == xt.Insert) && xt.Owned(o.Chain)
}

func (k Kernel) restore(ctx context.Context, v6 bool, ops []xt.Op) error {
	do := func() error {
		_, err := run(ctx, xt.RestoreInput(ops, v6), k.program(v6, "restore"), "--noflush", "-w", wait)
		return err
	}
	if k.Around == nil {
		return do()
	}
	return k.Around(do)
}

// tooLong reports whether a transaction is too large for netlink: outside the first user namespace the kernel takes no more than
// net.core.wmem_max bytes, some 500 rules.
func tooLong(err error) bool {
	var p *programError
	return errors.As(err, &p) && strings.Contains(p.stderr, "Message too long")
}

// lineNumber finds the line a program complains about: "line 6: RULE_APPEND failed", "Error occurred at line: 6", "line 6 failed".
var lineNumber = regexp.MustCompile(`(?s)^(.*?)\bline:? (\d+)(?:: ([^\n]*))?`)

// refusedOp finds the op an error is about and why it was refused, or -1. The input has one line of "*table", then one for each op.
func refusedOp(ops []xt.Op, err error) (int, string) {
	var p *programError
	if !errors.As(err, &p) {
		return -1, ""
	}
	m := lineNumber.FindStringSubmatch(p.stderr)
	if m == nil {
		return -1, ""
	}
	n, _ := strconv.Atoi(m[2])
	i := n - 2
	if i < 0 || i >= len(ops) { // the COMMIT line: the legacy kernel interface takes or refuses a table as a whole
		return -1, ""
	}
	reason := m[3]
	if reason == "" {
		reason = strings.TrimSuffix(strings.TrimSpace(m[1]), "Error occurred at")
	}
	return i, strings.Join(strings.Fields(reason), " ")
}
