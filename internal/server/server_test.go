package server

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
)

func TestDataDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "weft-server")
	d, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{d.path, d.pki(), d.nodes()} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	if _, err := openDataDir(path); err == nil || !strings.Contains(err.Error(), "in use by another weft-server") {
		t.Errorf("second server: %v", err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.abandon(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("a failed start removed a directory that was there before it")
	}
	fresh, err := openDataDir(path + "2")
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.abandon(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a failed start left its directory behind")
	}
}

func TestDataDirIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path); err == nil || !strings.HasPrefix(err.Error(), "--data-dir: ") {
		t.Errorf("got %v", err)
	}
}

func TestOrphaned(t *testing.T) {
	pod := func(name, node string, deleted bool) *v1.Pod {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: v1.PodSpec{NodeName: node}}
		if deleted {
			p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		}
		return p
	}
	pods := []*v1.Pod{
		pod("waiting", "", false), pod("deleted-before-bound", "", true), pod("fine", "alive", false),
		pod("dying", "alive", true), pod("orphan", "dead", false),
	}
	exists := func(node string) bool { return node == "alive" }
	gone, suspects := orphaned(pods, nil, exists)
	if len(gone) != 1 || gone[0].Name != "deleted-before-bound" || len(suspects) != 1 || !suspects["orphan"] {
		t.Errorf("first look: gone %v, suspects %v", gone, suspects)
	}
	if gone, _ = orphaned(pods, suspects, exists); len(gone) != 2 || gone[1].Name != "orphan" {
		t.Errorf("second look: gone %v", gone)
	}
	if gone, suspects = orphaned(pods, suspects, func(string) bool { return true }); len(gone) != 1 || len(suspects) != 0 {
		t.Error("a node that came back lost its pod")
	}
}

func TestSpread(t *testing.T) {
	cfg, err := latest.Default()
	if err != nil {
		t.Fatal(err)
	}
	spread(cfg)
	for _, plugin := range cfg.Profiles[0].PluginConfig {
		if args, ok := plugin.Args.(*config.PodTopologySpreadArgs); ok {
			if len(args.DefaultConstraints) != 1 || args.DefaultConstraints[0].MaxSkew != 1 || args.DefaultingType != config.ListDefaulting {
				t.Errorf("arguments %+v", args)
			}
			return
		}
	}
	t.Error("the default profile has no arguments for PodTopologySpread: spread does nothing")
}

func TestQuiet(t *testing.T) {
	for text, want := range map[string]bool{
		"Failed to ensure lease exists, will retry": true, "etcdserver: mvcc: database space exceeded": false,
	} {
		if got := benign(slog.NewRecord(time.Now(), slog.LevelError, text, 0)); got != want {
			t.Errorf("%q: benign %v", text, got)
		}
	}
}

func TestPortHint(t *testing.T) {
	err := portHint(errors.New("listen tcp :443: bind: address already in use"), "--secure-port")
	if want := "listen tcp :443: bind: address already in use: another program has the port; stop it or change --secure-port"; err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestNodeNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"kube-node1": true, "a.b": true, "": false, "A": false, "a/b": false, "..": false, "-a": false, strings.Repeat("a", 254): false,
	} {
		if got := checkNodeName(name) == nil; got != ok {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestNodeKubeconfigWithoutServer(t *testing.T) {
	_, err := nodeKubeconfig(t.TempDir(), "n1")
	if err == nil || !strings.Contains(err.Error(), "start weft-server on it once") {
		t.Errorf("got %v", err)
	}
}
