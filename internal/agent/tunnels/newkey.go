package tunnels

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"weft/internal/kernel/tun/wg"
)

// NewKey replaces the node's private key by a new one. flannel's is not looked at again.
func NewKey(stateDir string) error {
	if err := os.Remove(keyFile(stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the private key: %w", err)
	}
	_, err := wg.LoadKey(keyFile(stateDir), "")
	return err
}
