// Package bench measures deckhand beside the raw engine in one run. The machine
// may be busy, so ratios within a run are what counts. "make bench" prints the
// tables.
package bench
