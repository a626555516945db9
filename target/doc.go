// Package target turns the documents that say what a device should run into
// state.Target.
//
// A document is read in one pass as a stream of tokens, so that it costs little
// memory and hostile ones cost no more. What breaks the document's own rules
// refuses it whole, every violation named by its path; what breaks the rules of
// one app's composition refuses that app alone.
package target
