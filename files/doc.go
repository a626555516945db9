// Package files writes the secrets and configs of services where their
// containers find them: below the run folder, which a device keeps in memory.
// Each content has a folder of its own, named by its hash, that appears complete
// or not at all; where it is says package state.
package files
