// Package target turns the documents that say what a device should run into
// state.Target.
//
// A document is read in one pass as a stream of tokens, so that it costs little
// memory and hostile ones cost no more. What breaks the document's own rules
// refuses it whole, every violation named by its path; what breaks the rules of
// one app's composition, or a contract that the device does not meet, refuses
// that app alone. Contracts are checked each time a document is read, so a
// stored one is judged by the device as it is now.
//
// Older forms, apps.json and documents of local mode, are brought into the v3
// form first and then read like any other.
package target
