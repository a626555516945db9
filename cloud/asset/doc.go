// Package asset keeps the files of releases: firmware, notes, whatever somebody
// uploads beside the images.
//
// A file is a folder of parts, named by its place and the hash of its content:
//
//	files/<id>/00001-<sha256>      a file that an asset has
//	uploads/<uuid>/00002-<sha256>  parts of an upload that goes on
//	partial/…                      a part that is being received
//
// The end of an upload moves one folder, whatever its size. The database says which
// folders are needed; the others are removed. In a bucket nothing moves: see inBucket.
package asset
