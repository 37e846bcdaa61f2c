package network

import (
	"os"
	"testing"

	"weft/internal/kernel/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }
