package status

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/agent/rundir"
)

// maxProfile bounds how long the processor's use is recorded for one question, in seconds.
const maxProfile = 60

// debugRoutes lets the host's administrator see what the agent spends memory and processor time on, in the format of go tool pprof.
func debugRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/heap", func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC() // else the profile is of the collection before
		writeProfile(w, "heap", 0)
	})
	mux.HandleFunc("GET /debug/goroutines", func(w http.ResponseWriter, _ *http.Request) { writeProfile(w, "goroutine", 1) })
	mux.HandleFunc("GET /debug/cpu", func(w http.ResponseWriter, r *http.Request) {
		text := r.FormValue("seconds")
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxProfile {
			http.Error(w, fmt.Sprintf("seconds=%s: want 1 to %d", text, maxProfile), http.StatusBadRequest)
			return
		}
		if err := pprof.StartCPUProfile(w); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		defer pprof.StopCPUProfile()
		timer := time.NewTimer(time.Duration(n) * time.Second)
		defer timer.Stop()
		select {
		case <-r.Context().Done():
		case <-timer.C:
		}
	})
}

func writeProfile(w http.ResponseWriter, name string, debug int) {
	if err := pprof.Lookup(name).WriteTo(w, debug); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// DebugCommand is "weft debug".
func DebugCommand() *cobra.Command {
	var runDir string
	var seconds int
	get := func(path func() string) func(*cobra.Command, []string) error {
		return func(c *cobra.Command, _ []string) error {
			return copyProfile(c.Context(), c.OutOrStdout(), runDir, path())
		}
	}
	c := &cobra.Command{Use: "debug", Short: "what the agent on this host spends memory and processor time on, for go tool pprof"}
	c.PersistentFlags().StringVar(&runDir, "run-dir", "/run/weft", "the agent's run directory")
	cpu := &cobra.Command{
		Use: "cpu", Short: "a profile of its processor time", Args: cobra.NoArgs,
		RunE: get(func() string { return "/debug/cpu?" + url.Values{"seconds": {strconv.Itoa(seconds)}}.Encode() }),
	}
	cpu.Flags().IntVar(&seconds, "seconds", 5, "how long it is recorded, at most 60")
	c.AddCommand(cpu,
		&cobra.Command{
			Use: "heap", Short: "a profile of its memory", Args: cobra.NoArgs, RunE: get(func() string { return "/debug/heap" }),
		},
		&cobra.Command{
			Use: "goroutines", Short: "what its goroutines do, as text", Args: cobra.NoArgs,
			RunE: get(func() string { return "/debug/goroutines" }),
		})
	return c
}

func copyProfile(ctx context.Context, w io.Writer, runDir, path string) error {
	body, err := rundir.AskFor(ctx, runDir, path, (maxProfile+10)*time.Second)
	if err == nil {
		_, err = w.Write(body)
	}
	return err
}
