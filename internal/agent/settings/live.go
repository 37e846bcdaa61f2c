package settings

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"weft/internal/agent/loop"
	"weft/internal/store/file"
)

// NewLive puts the configuration of the start in force.
func NewLive(first *Configured) *Live {
	return &Live{now: first, changed: make(chan struct{}, 1)}
}

// Offers receives when there is something to take up.
func (l *Live) Offers() <-chan struct{} { return l.changed }

// Follow offers the content of the configuration's file whenever it changes, until ctx ends. What is wrong with it, or not possible on this
// host, is logged once and shown by status; the settings in force stay then.
func (l *Live) Follow(ctx context.Context, c Config, log *slog.Logger, possible func(context.Context, *Config) error) error {
	return file.Follow(ctx, c.File, c.fileData, func(data []byte, err error) {
		var next *Configured
		if err == nil {
			next, err = c.withFile(data, l.Get())
		}
		if err == nil {
			err = possible(ctx, &next.Config)
		}
		if err != nil {
			l.refuse(err)
			log.Error("the configuration file is not taken up, the settings in force stay", "err", err)
			return
		}
		l.offer(next)
	})
}

// TakeUp puts what was read from the file in force and returns it; nil when there is nothing new.
func (l *Live) TakeUp(log *slog.Logger) *Config {
	next, before := l.take()
	if next == nil {
		return nil
	}
	old := flagValues(before.Config)
	next.each(func(name string, v []string) {
		if !slices.Equal(v, old[name]) {
			log.Info("a setting changed", "setting", name, "from", shown(name, old[name]), "to", shown(name, v))
		}
	})
	for _, text := range next.pending {
		log.Warn("a setting needs a restart of the agent: " + text)
	}
	next.setLevel()
	return &next.Config
}

// Live holds the configuration in force. The rest of the agent's configuration, what needs a restart, is as it was at the start.
type Live struct {
	mu      sync.Mutex
	now     *Configured
	next    *Configured // read, not yet in force
	changed chan struct{}
	at      time.Time // when it was taken up
	problem string    // why the file's content is not in force
}

// Get returns the configuration in force.
func (l *Live) Get() *Configured {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// offer puts a configuration before the loop that takes it up.
func (l *Live) offer(c *Configured) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = c
	loop.Poke(l.changed)
}

func (l *Live) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next, l.problem = nil, err.Error()
}

// take makes what was offered the one in force and returns it and the one before; nil when there is nothing new.
func (l *Live) take() (next, before *Configured) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		return nil, l.now
	}
	before, l.now, l.next, l.problem, l.at = l.now, l.next, nil, "", time.Now()
	return l.now, before
}
