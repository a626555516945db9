// Package logs carries what containers print, and what the supervisor says about
// its own doing, to the cloud and to listeners on the device's own network.
//
//	Line       one line, the same for all who read it
//	Stream     hands every line to whoever listens now, and keeps none
//	Collector  one reader for each container; continues after restarts
//	Outbox     lines for the cloud: a queue for each source, taken in turn;
//	           what the cloud cannot take waits on the disk
//
// A line has a position that grows within its source and is the same whenever
// the line is read again. So both a resumed reader and a cloud that gets a line
// twice know it again.
package logs
