// Package uplink is the cloud as the device sees it: registering, polling the
// target state, reporting, and the credentials for the registry.
//
// Each call is one request; nothing here repeats a request behind the caller's
// back, because hidden retries multiply with the loops' own and keep a dead
// connection busy for minutes. The loops are Poller.Run and Provision.
package uplink
