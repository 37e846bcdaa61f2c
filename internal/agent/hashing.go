package agent

import (
	"sync"

	"weft/internal/kernel/nft"
)

// hashless asks the kernel once whether its nf_tables can hash. Where it can't be asked it counts as able: the kernel's own refusal names the
// rule then.
type hashless struct {
	once sync.Once
	is   bool
	ask  func() (nft.Feature, error) // nil: the kernel
}

func (h *hashless) get() bool {
	h.once.Do(func() {
		ask := h.ask
		if ask == nil {
			ask = askForHashing
		}
		f, err := ask()
		h.is = err == nil && f.Err != nil
	})
	return h.is
}

func askForHashing() (nft.Feature, error) {
	c, err := nft.Open()
	if err != nil {
		return nft.Feature{}, err
	}
	defer c.Close()
	return c.Hashing()
}
