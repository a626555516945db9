// Package odata serves the resources below /v7/, and those of older versions of
// the API, in the query language that API clients speak.
//
// A request goes one way: query.Parse makes a tree of it; the compiler turns the
// tree into SQL against the descriptors of the resources (compile.go, value.go,
// function.go), with the rows that the caller may see as a condition wherever a
// navigation leads; the reader runs one query for the rows and one for each
// expansion (read.go), and writes JSON (rows.go).
//
// Names become SQL only through the descriptors; values are always arguments.
// What is not supported is refused with a text that names it, never ignored.
package odata
