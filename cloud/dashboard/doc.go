// Package dashboard is the cloud's web page: it shows the fleets of whoever
// logs in, their devices and services, and changes by itself when they do. It
// shows only; nothing can be changed here.
//
// The page is rendered on the server. A small script listens to a stream of
// the same HTML (server-sent events) and swaps the parts that differ. Without
// the script the page is the same, only still.
package dashboard
