package kube

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/api"
)

// The annotations of a Service that say how its endpoints are chosen (docs/balancing.md).
const (
	annotationBalance = "weft.dev/balance"
	annotationWeights = "weft.dev/weights"
)

// What the annotation of weights may say: so many rules, weights up to so much, so many bytes in all.
const (
	maxWeight      = 100
	maxWeightRules = 64
	maxWeightText  = 4096
)

// balance reads the annotations into the service ports. One that is no good is refused as a whole: the service is served as without it.
func balance(s *corev1.Service, sp *api.ServicePort) {
	var refused []string
	if text, ok := s.Annotations[annotationBalance]; ok {
		switch b := api.Balance(strings.TrimSpace(text)); b {
		case api.Maglev, api.LeastConnections:
			sp.Balance = b
		case "round-robin":
		default:
			refused = append(refused, fmt.Sprintf("annotation %s=%s: want round-robin, maglev or least-connections; round-robin is used",
				annotationBalance, short(text)))
		}
	}
	if text, ok := s.Annotations[annotationWeights]; ok {
		if _, err := parseWeights(text); err != nil {
			refused = append(refused, fmt.Sprintf("annotation %s=%s: %v; all endpoints have equal weight", annotationWeights, short(text), err))
		} else {
			sp.Weights = strings.TrimSpace(text)
		}
	}
	refuse(sp, refused...)
}

// short is text as it can be shown: quoted, and cut when it is long.
func short(text string) string {
	if len(text) > 40 {
		return strconv.Quote(text[:40]) + "..."
	}
	return strconv.Quote(text)
}

// weightRule gives a weight to the endpoints of a zone, a node, or a pod by its name or the beginning of it.
type weightRule struct {
	kind, name string
	prefix     bool
	weight     uint8
}

// parseWeights reads "zone/a=3,node/n1=2,pod/web-canary-*=1". The first rule that an endpoint meets counts; without one it has weight 1.
func parseWeights(text string) ([]weightRule, error) {
	if len(text) > maxWeightText {
		return nil, fmt.Errorf("%d bytes: want at most %d", len(text), maxWeightText)
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
	if len(words) > maxWeightRules {
		return nil, fmt.Errorf("%d rules: want at most %d", len(words), maxWeightRules)
	}
	out := make([]weightRule, 0, len(words))
	for _, w := range words {
		r, err := parseWeight(w)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", short(w), err)
		}
		out = append(out, r)
	}
	return out, nil
}

var (
	errRule   = errors.New("want zone/NAME=WEIGHT, node/NAME=WEIGHT or pod/NAME=WEIGHT")
	errWeight = fmt.Errorf("want a weight from 1 to %d", maxWeight)
	errStar   = errors.New("a * may only be the last of a name")
)

func parseWeight(w string) (weightRule, error) {
	what, number, ok := strings.Cut(w, "=")
	kind, name, named := strings.Cut(what, "/")
	if !ok || !named || name == "" || kind != "zone" && kind != "node" && kind != "pod" {
		return weightRule{}, errRule
	}
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil || n < 1 || n > maxWeight {
		return weightRule{}, errWeight
	}
	r := weightRule{kind: kind, weight: uint8(n)}
	if r.name, r.prefix = strings.CutSuffix(name, "*"); strings.Contains(r.name, "*") {
		return weightRule{}, errStar
	}
	return r, nil
}

func (r weightRule) meets(e *endpoint) bool {
	name := e.pod
	switch r.kind {
	case "zone":
		name = e.Zone
	case "node":
		name = e.Node
	}
	if r.prefix {
		return name != "" && strings.HasPrefix(name, r.name)
	}
	return name == r.name
}

// weightOf is the endpoint's weight, 0 where no rule names it.
func weightOf(rules []weightRule, e *endpoint) uint8 {
	for _, r := range rules {
		if r.meets(e) {
			return r.weight
		}
	}
	return 0
}
