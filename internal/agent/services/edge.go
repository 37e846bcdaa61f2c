package services

import (
	"weft/internal/agent/guard"
	"weft/internal/agent/refused"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

// Refused reads what the packet filter refused.
func (p *Loop) Refused() (refused.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.setting()
	out := refused.Status{Check: "off", Sealed: len(guard.SealOf(s.Facts).Networks) > 0}
	if s.EdgeCheck {
		out.Check = "on"
	}
	if p.noTables != nil {
		out.Check, out.Sealed = "none: "+p.noTables.Error(), false
		return out, nil
	}
	k, ok := p.nft.(refused.Reader)
	if !ok {
		return out, nil
	}
	chains, err := k.Counts(nft.INet, nft.TableName)
	if err != nil {
		return out, err
	}
	counts := p.edge.Read(chains)
	for _, r := range append(edge.Reasons(), edge.Cleartext) {
		if n, ok := counts[r]; ok {
			backend := "vxlan"
			if r == edge.Cleartext {
				backend = "wireguard"
			}
			out.Refused = append(out.Refused, refused.Count{Backend: backend, Reason: string(r), Packets: n})
		}
	}
	for _, w := range edge.Refused(p.table.Guard.Config) {
		keys, err := k.Members(nft.INet, nft.TableName, w.Set)
		if err != nil {
			return out, err
		}
		for _, key := range keys {
			out.From = append(out.From, refused.SenderOf(w, key))
		}
	}
	return out, nil
}
