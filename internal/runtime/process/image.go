package process

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/internal/runtime"
)

// hostPath is where a host's programs are.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// image is one name of the catalogue.
type image struct {
	builtin string // `weft image NAME` runs when the container names no command
	shell   bool   // a shell runs instead when the container has an open standard input
	busybox bool   // busybox's programs come before the host's, as in an image that has no others
}

// idle is the built-in program that waits to be stopped.
const idle = "pause"

// catalogue is all the images there are. A program given by the container runs on the host's files in any of them.
var catalogue = map[string]image{
	"nginx":   {builtin: "nginx"},
	"sshd":    {builtin: "sshd"},
	"pause":   {builtin: idle},
	"busybox": {builtin: idle, shell: true, busybox: true},
	"alpine":  {builtin: idle, shell: true, busybox: true},
	"debian":  {builtin: idle, shell: true},
	"ubuntu":  {builtin: idle, shell: true},
}

// baseName is an image's name without registry, path, tag and digest: docker.io/library/nginx:1.0@sha256:... is nginx.
func baseName(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	ref = ref[strings.LastIndexByte(ref, '/')+1:]
	ref, _, _ = strings.Cut(ref, ":")
	return ref
}

func findImage(ref string) (image, error) {
	img, ok := catalogue[baseName(ref)]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(catalogue)), ", ")
		return image{}, fmt.Errorf("%w: %q: this node runs pods as processes and only knows %s", runtime.ErrImage, ref, known)
	}
	return img, nil
}

// command is the container's program, "" to look for the first of argv, its command line and its environment.
func (r *Runtime) command(img image, sb *runtime.Sandbox, c *runtime.Container) (path string, argv, env []string) {
	switch {
	case len(c.Command) > 0:
		argv = append(slices.Clone(c.Command), c.Args...)
	case len(c.Args) > 0: // as in the real images, whose entrypoint is empty or runs its arguments
		argv = slices.Clone(c.Args)
	case img.shell && c.Stdin:
		argv = []string{"sh"}
	default:
		path, argv = r.exe[0], r.self("image", img.builtin)
	}
	search := hostPath + ":" + r.applets
	if img.busybox {
		search = r.applets + ":" + hostPath
	}
	env = []string{"PATH=" + search, "HOSTNAME=" + sb.Hostname, "HOME=/root"}
	if c.TTY {
		env = append(env, "TERM=xterm")
	}
	return path, argv, append(env, c.Env...) // of two with the same name the later counts
}
