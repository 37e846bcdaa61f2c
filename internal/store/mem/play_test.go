package mem

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// replay plays given steps again: go test ./internal/store/mem -run TestReplay -args -replay SEED:HARM:STEP,STEP,...
var replay = flag.String("replay", "", "steps of a failed run")

// harms are what a run may hold besides time, late and lost messages, partitions, restarts, compactions and clocks that are wrong.
var harms = []string{"none", "restore", "any"}

// play makes a run of the steps, each of which is the seed of all that is random in it, and returns why it is wrong.
func play(t *testing.T, seed uint64, harm string, steps []uint64) (s *sim, broken string) {
	defer func() {
		if f, ok := recover().(failure); ok {
			broken = f.text
		}
	}()
	s = newSim(t, seed, 6)
	s.quiet = true
	for _, step := range steps {
		s.rnd = rand.New(rand.NewPCG(step, 7))
		if harm == "restore" && s.rnd.IntN(40) == 0 {
			s.rewind()
			continue
		}
		s.step(harm == "any")
	}
	s.rnd = rand.New(rand.NewPCG(seed, 8))
	s.settle()
	if harm != "any" {
		s.believers()
	}
	return s, ""
}

// rewind saves the store, or puts back what was saved.
func (s *sim) rewind() {
	if s.backup == nil || s.rnd.IntN(2) == 0 {
		b := s.store.Backup()
		s.backup = &b
		return
	}
	s.say("store restored to %d", s.backup.rev)
	s.restores++
	s.store.Restore(*s.backup)
}

// shrink leaves out steps as long as the run stays wrong.
func shrink(steps []uint64, wrong func([]uint64) bool) []uint64 {
	tries := 600
	for size := len(steps) / 2; size > 0; {
		smaller := false
		for at := 0; at+size <= len(steps) && tries > 0; {
			tries--
			less := append(append([]uint64{}, steps[:at]...), steps[at+size:]...)
			if wrong(less) {
				steps, smaller = less, true
			} else {
				at += size
			}
		}
		if !smaller || size > len(steps) {
			size /= 2
		}
	}
	return steps
}

// TestInterleavings runs random interleavings of everything that happens to leases: grant, renewal, expiry, revocation, compaction,
// restore, partition, restarts, lost and late messages, clocks that run wrong. A run that fails is made smaller before it is shown.
func TestInterleavings(t *testing.T) {
	for i, harm := range harms {
		t.Run("harm="+harm, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(12 * *deep) {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				steps := make([]uint64, 600)
				for i := range steps {
					steps[i] = rnd.Uint64() % 1_000_000
				}
				if _, broken := play(t, seed, harm, steps); broken != "" {
					show(t, seed, harm, shrink(steps, func(less []uint64) bool {
						_, broken := play(t, seed, harm, less)
						return broken != ""
					}))
				}
			}
		})
	}
}

// show plays the steps once more and tells all.
func show(t *testing.T, seed uint64, harm string, steps []uint64) {
	t.Helper()
	s, broken := play(t, seed, harm, steps)
	if broken == "" {
		return
	}
	t.Fatalf("%s\n%d steps are enough; again: -replay %d:%s:%s\n%s", broken, len(steps), seed, harm,
		strings.Trim(strings.ReplaceAll(fmt.Sprint(steps), " ", ","), "[]"), strings.Join(s.log, "\n"))
}

// TestReplay plays what -replay names.
func TestReplay(t *testing.T) {
	if *replay == "" {
		t.Skip("nothing to play again: see -replay")
	}
	parts := strings.SplitN(*replay, ":", 3)
	if len(parts) != 3 {
		t.Fatal("-replay: want SEED:HARM:STEP,STEP,...")
	}
	seed, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var steps []uint64
	for text := range strings.SplitSeq(parts[2], ",") {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, n)
	}
	show(t, seed, parts[1], steps)
}

// TestShrink: what is left is what matters.
func TestShrink(t *testing.T) {
	var steps []uint64
	for i := range uint64(600) {
		steps = append(steps, i)
	}
	got := shrink(steps, func(less []uint64) bool { return slices.Contains(less, 17) && slices.Contains(less, 402) })
	if !slices.Equal(got, []uint64{17, 402}) {
		t.Errorf("got %v", got)
	}
}
