// Package runtime holds the words that the node program and the pod runtimes (runtime/process, runtime/cri) share: what a
// sandbox and a container are asked to be and what became of them.
//
// Floor 3, edges (the shared values of its sub-packages).
package runtime

import (
	"errors"
	"io"
	"time"
)

// ErrImage says that no runtime here can provide the image; kubectl shows it as ErrImagePull.
var ErrImage = errors.New("image not found")

// ErrNotFound says that the sandbox or container does not exist (any more).
var ErrNotFound = errors.New("not found")

// Sandbox is what a pod's containers share: its namespaces.
type Sandbox struct {
	UID         string // the pod's metadata.uid
	Namespace   string
	Name        string
	Hostname    string
	HostNetwork bool     // containers use the host's network namespace
	Nameservers []string // resolv.conf of the pod; empty: the host's
	Searches    []string
}

// Container is one program of a pod, all of the pod API's defaults resolved.
type Container struct {
	Name       string
	Image      string
	Command    []string // replaces the image's entrypoint when not empty
	Args       []string // replaces the image's arguments when not empty
	Env        []string // KEY=value
	WorkingDir string
	Stdin      bool
	TTY        bool
	Attempt    int // restart count, 0 for the first start
}

// ContainerState says where a container is in its life.
type ContainerState string

// The states of a container.
const (
	Running ContainerState = "running"
	Exited  ContainerState = "exited"
)

// ContainerStatus is what became of a container.
type ContainerStatus struct {
	Name       string
	ID         string // unique for every start
	Image      string
	State      ContainerState
	PID        int // in the host's PID namespace, 0 when exited
	ExitCode   int // 128+signal when a signal ended it
	StartedAt  time.Time
	FinishedAt time.Time
	Attempt    int
	LogPath    string // file in the CRI log format
}

// SandboxStatus is a sandbox and its containers as they are now.
type SandboxStatus struct {
	Sandbox
	PID        int    // process that holds the namespaces
	Netns      string // path of the network namespace, "" with HostNetwork
	CreatedAt  time.Time
	Containers []ContainerStatus
}

// Stream is the other side of an exec: any of the readers and writers may be nil.
type Stream struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size // terminal sizes, in characters
}

// Size is a terminal's size in characters.
type Size struct{ Width, Height uint16 }
