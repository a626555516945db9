// Package odata serves the resources below /v7/ in the query language that
// API clients speak.
//
// A request goes one way: path and options are parsed (path.go, filter.go),
// compiled to SQL against the fields of the resource (sql.go), limited to the
// rows the caller may see, and written as JSON (rows.go).
//
// Of the language this is the part on own fields: keys, $select, $filter,
// $orderby, $top, $skip and /$count. What is not supported is refused with a
// text that names it, never ignored.
package odata
