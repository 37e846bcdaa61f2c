package host

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// IP runs lines of "ip -batch" in the caller's network namespace. The first line that fails ends it; the error names the line.
func IP(lines ...string) error {
	ip, err := Find("ip")
	if err != nil {
		return fmt.Errorf("find ip(8): %w", err)
	}
	cmd := exec.Command(ip, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	var n int
	if i := strings.LastIndex(text, "Command failed -:"); i >= 0 {
		if _, scanErr := fmt.Sscanf(text[i:], "Command failed -:%d", &n); scanErr == nil && n >= 1 && n <= len(lines) {
			return fmt.Errorf("ip %s: %s", lines[n-1], strings.TrimSpace(text[:i]))
		}
	}
	return errors.New("ip -batch: " + err.Error() + ": " + text)
}
