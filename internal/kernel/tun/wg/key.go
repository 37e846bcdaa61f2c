package wg

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Key is a key of Curve25519 or a preshared key. It prints as base64, as wg(8) does; do not print private ones.
type Key = wgtypes.Key

// ParseKey reads a key in base64.
func ParseKey(text string) (Key, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
	if err != nil || len(raw) != len(Key{}) {
		return Key{}, errors.New("not a wireguard key: want 32 bytes in base64, as \"wg genkey\" prints them")
	}
	return Key(raw), nil
}

// LoadKey returns the host's private key: that in the file, else that in the file other, which is flannel's, else a new one. It stays in the
// file, which only its owner may read.
func LoadKey(file, other string) (Key, error) {
	for _, f := range []string{file, other} {
		text, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) || f == "" {
			continue
		}
		if err != nil {
			return Key{}, fmt.Errorf("read private key: %w", err)
		}
		k, err := ParseKey(string(text))
		if err != nil {
			return Key{}, fmt.Errorf("read private key: %s: %w; without the file a new one is made", f, err)
		}
		if f == file {
			return k, protect(f)
		}
		return k, saveKey(file, k)
	}
	var k Key
	_, _ = rand.Read(k[:]) // never fails
	k[0] &= 248
	k[31] = k[31]&127 | 64 // RFC 7748 5: clamped
	return k, saveKey(file, k)
}

const keyMode = 0o400

// protect takes the rights of others to the key away.
func protect(file string) error {
	st, err := os.Stat(file)
	if err == nil && st.Mode().Perm() != keyMode {
		err = os.Chmod(file, keyMode)
	}
	if err != nil {
		return fmt.Errorf("protect private key: %w", err)
	}
	return nil
}

// saveKey writes the file at once or not at all.
func saveKey(file string, k Key) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save private key: %w", err)
	}
	_, err = tmp.WriteString(k.String() + "\n")
	err = errors.Join(err, tmp.Chmod(keyMode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save private key: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}

// hexKey is the key as the configuration protocol of user-space WireGuard writes it.
func hexKey(k Key) string { return hex.EncodeToString(k[:]) }
