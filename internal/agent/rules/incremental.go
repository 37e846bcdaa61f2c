package rules

import (
	"reflect"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
	"weft/internal/proxy"
)

// owners in the union of table inet weft besides the service ports.
const (
	ownerBase  = "services"
	ownerPods  = "pods"
	ownerGuard = "overlay"
)

// Content is what table inet weft is planned from.
type Content struct {
	Guard guard.Guard
	// The services and the masquerading are in it in some modes only.
	inTable  bool // the masquerading is, and, if served, the services are
	served   bool
	node     proxy.Node
	Masq     masq.Config
	facts    facts.Services
	services []api.ServicePort // sorted as the snapshot's
	changes  *api.ServiceChanges
}

// TablePlan is the content of table inet weft as planned, kept so that a changed service costs that service.
type TablePlan struct {
	Merge   *nft.Merge
	members memberPlan
	rules   nft.Table // of the guard
	Content
	list    ServiceList
	Last    Changes
	refused refusals
}

// Changes are those of the last update.
type Changes struct {
	All         bool // everything was planned anew
	First       bool // and nothing was planned before: the ops are all that an empty table needs
	Gone, Fresh []api.ServicePort
}

// OwnerOf is a service port's name in the union.
func OwnerOf(s api.ServicePort) string {
	return "service " + s.Name.String() + " " + string(s.Protocol)
}

// Update plans what changed and returns the ops for it. The first one plans everything.
func (t *TablePlan) Update(c Content) []nft.Op {
	gone, fresh, ok := t.list.Next(c.services, c.changes)
	c.changes = nil
	t.Last = Changes{Gone: gone, Fresh: fresh}
	if !ok || t.differs(c) {
		return t.rebuild(c)
	}
	parts := map[string]nft.Table{}
	if !reflect.DeepEqual(t.Guard.Config, c.Guard.Config) {
		parts[ownerGuard] = edge.Rules(c.Guard.Config)
	}
	if c.inTable {
		t.changedRules(parts, c, gone, fresh)
	}
	return t.put(parts, c)
}

// put puts the parts into the union, and the members beside them. Members come before the rules that look them up: a packet between two
// transactions must not find the check without those it lets pass.
func (t *TablePlan) put(parts map[string]nft.Table, c Content) []nft.Op {
	if t.rules.Family == "" || !reflect.DeepEqual(t.Guard.Config, c.Guard.Config) {
		t.rules = edge.Rules(c.Guard.Config)
	}
	t.Content = c
	var ops []nft.Op
	if len(parts) > 0 {
		ops = t.Merge.Update(parts)
	}
	anew := len(ops) > 0 && ops[0].Kind == nft.KindTable // made, or made again
	members := t.members.update(t.rules, c.Guard.Members, anew)
	first := slices.IndexFunc(members, func(op nft.Op) bool { return op.Verb == nft.Del })
	if first < 0 {
		first = len(members)
	}
	at := slices.IndexFunc(ops, func(op nft.Op) bool { return op.Kind == nft.KindRules })
	if at < 0 {
		at = len(ops)
	}
	return slices.Concat(ops[:at], members[:first], ops[at:], members[first:])
}

// differs reports whether more than services and the guard's members differs.
func (t *TablePlan) differs(c Content) bool {
	if t.Merge == nil || t.inTable != c.inTable || t.served != c.served {
		return true
	}
	return c.inTable && (t.planner() != c.planner() || !reflect.DeepEqual(t.node, c.node))
}

// changedRules adds what differs in the services and in the masquerading.
func (t *TablePlan) changedRules(parts map[string]nft.Table, c Content, gone, fresh []api.ServicePort) {
	plans := c.planner().For(c.node)
	if !reflect.DeepEqual(t.Masq, c.Masq) {
		parts[ownerPods] = masq.NFT(c.Masq)
	}
	for _, s := range gone {
		parts[OwnerOf(s)] = nft.New()
	}
	for _, s := range fresh {
		parts[OwnerOf(s)] = plans.Plan(s)
	}
}

// rebuild plans everything anew.
func (t *TablePlan) rebuild(c Content) []nft.Op {
	t.Last.All, t.Last.First = true, t.Merge == nil
	if t.Merge == nil {
		t.Merge = nft.NewMerge(nft.INet, nft.TableName)
	}
	parts := fragments(c)
	for _, owner := range t.Merge.Owners() {
		if _, ok := parts[owner]; !ok {
			parts[owner] = nft.New()
		}
	}
	return t.put(parts, c)
}

// Table is the whole content, nil when there shall be no table.
func (t *TablePlan) Table() *nft.Table {
	all := t.Unsorted()
	if all != nil {
		all.Sort()
	}
	return all
}

// Unsorted is Table but for the order of elements, which costs as much as all the rest.
func (t *TablePlan) Unsorted() *nft.Table {
	if t.Merge == nil || t.Merge.Empty() {
		return nil
	}
	all := t.Merge.Unsorted()
	t.members.fill(&all)
	return &all
}
