//go:build bench

package database

import "testing"

func TestOneContainerBecomesManyBig(t *testing.T) {
	moved(t, place(t), size{applications: 1000, builds: 20_000, devices: 50_000}, 50)
}
