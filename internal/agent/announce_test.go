package agent

import (
	"errors"
	"testing"
)

// TestEnvFile: a failure is told until the file is written, and takes back that it was.
func TestEnvFile(t *testing.T) {
	var f envFile
	for i, x := range []struct {
		err     error
		written bool
		why     string
	}{
		{errors.New("no room"), false, "no room"}, {nil, true, ""}, {errors.New("read only"), false, "read only"},
	} {
		if written, why := f.state(); i == 0 && (written || why != "") {
			t.Errorf("before the first write: %v, %q", written, why)
		}
		f.wrote(x.err)
		if written, why := f.state(); written != x.written || why != x.why {
			t.Errorf("after %v: %v, %q", x.err, written, why)
		}
	}
}
