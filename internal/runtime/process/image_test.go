package process

import (
	"errors"
	"strings"
	"testing"

	"weft/internal/runtime"
)

func TestFindImage(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                             "nginx",
		"nginx:1.0":                         "nginx",
		"docker.io/library/nginx:1.0":       "nginx",
		"localhost:5000/team/nginx":         "nginx",
		"registry.k8s.io/pause:3.10":        "pause",
		"debian@sha256:0123":                "debian",
		"debian:12@sha256:0123":             "debian",
		"nginxinc/nginx-unprivileged":       "",
		"redis":                             "",
		"":                                  "",
		":":                                 "",
		"nginx/":                            "",
		"docker.io/library/nginx/../passwd": "",
	} {
		_, err := findImage(ref)
		switch {
		case want == "":
			if !errors.Is(err, runtime.ErrImage) || !strings.Contains(err.Error(), "busybox, debian, nginx, pause, sshd, ubuntu") {
				t.Errorf("%q: error %v", ref, err)
			}
		case err != nil || baseName(ref) != want:
			t.Errorf("%q is %q (%v), want %q", ref, baseName(ref), err, want)
		}
	}
}

func TestCommand(t *testing.T) {
	r := &Runtime{exe: []string{"/bin/weft"}, applets: "/run/weft/applets"}
	for _, tt := range []struct {
		image      string
		c          runtime.Container
		path, argv string
		env        string // one of the variables
	}{
		{"nginx", runtime.Container{}, "/bin/weft", "weft image nginx", "HOSTNAME=web-1"},
		{"nginx", runtime.Container{Command: []string{"nc"}, Args: []string{"-l"}}, "", "nc -l", "HOME=/root"},
		{"nginx", runtime.Container{Args: []string{"id", "-u"}}, "", "id -u", ""},
		{"busybox", runtime.Container{}, "/bin/weft", "weft image pause", "PATH=/run/weft/applets:" + hostPath},
		{"debian", runtime.Container{Stdin: true, TTY: true}, "", "sh", "TERM=xterm"},
		{"debian", runtime.Container{Env: []string{"A=b"}}, "/bin/weft", "weft image pause", "A=b"},
		{"pause", runtime.Container{Stdin: true}, "/bin/weft", "weft image pause", "PATH=" + hostPath + ":/run/weft/applets"},
	} {
		img, err := findImage(tt.image)
		if err != nil {
			t.Fatal(err)
		}
		path, argv, env := r.command(img, &runtime.Sandbox{Hostname: "web-1"}, &tt.c)
		if path != tt.path || strings.Join(argv, " ") != tt.argv {
			t.Errorf("%s %+v: runs %q %q, want %q %q", tt.image, tt.c, path, argv, tt.path, tt.argv)
		}
		if !strings.Contains("\n"+strings.Join(env, "\n")+"\n", "\n"+tt.env) {
			t.Errorf("%s %+v: environment %q lacks %q", tt.image, tt.c, env, tt.env)
		}
	}
}

func TestParseStatus(t *testing.T) {
	text := "Name:\tsh PPid: 5\nPid:\t30\nPPid:\t7\nNSpid:\t30\t12\t3\n"
	if parent, inner := parseStatus(text); parent != 7 || inner != 3 {
		t.Errorf("parent %d and inner PID %d, want 7 and 3", parent, inner)
	}
	if parent, inner := parseStatus("PPid:\nNSpid"); parent != 0 || inner != 0 {
		t.Errorf("of nothing: %d, %d", parent, inner)
	}
}
