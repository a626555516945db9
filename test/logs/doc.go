// Package logs lets containers of a real engine print more than a cloud can
// take, while the cloud goes away and the reader is ended. Every line comes once and
// in order, or is counted by the mark in its place.
package logs
