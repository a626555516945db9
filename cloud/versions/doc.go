// Package versions has the older versions of the API as views of the current one.
//
// A version is a list of resources of its own: the same tables, with fields and
// navigations under the names and in the forms of that time. So reading needs no
// translation at all; a filter over an old name is compiled like any other. What
// is written is translated field by field into current names (see Body).
//
// Each version is made from the next newer one by the changes between them:
// v6.go holds what v7 changed, and so on down to v2, the time before a release
// had many containers.
package versions
