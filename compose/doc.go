// Package compose turns compose documents into canonical state values.
//
// A document passes three stages:
//
//	screen  every attribute is looked up in one table (attributes.go): applied,
//	        ignored or rejected, each by name; short forms become long forms and
//	        values get one spelling
//	decode  compose-go binds what is left to its types
//	build   the types become state.Spec, state.NetworkSpec and state.VolumeSpec
//
// Nothing of a document is dropped in silence: what is not applied comes back as
// a Problem that names its path. The package reads documents only; it knows no
// engine, no device and no cloud.
package compose
