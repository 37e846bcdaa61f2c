package node

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func hasCondition(list []corev1.PodCondition, t corev1.PodConditionType) bool {
	return slices.ContainsFunc(list, func(c corev1.PodCondition) bool { return c.Type == t })
}

func sortConditions(list []corev1.PodCondition) {
	slices.SortFunc(list, func(a, b corev1.PodCondition) int { return strings.Compare(string(a.Type), string(b.Type)) })
}
