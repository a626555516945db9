// Package supervisor wires the parts of deckhand together: start-up order,
// shutdown, health, and what people see of it. It holds no decisions of its own.
//
// What must work without anything else starts first: the loop with the stored
// target, then the local API, then the cloud.
package supervisor
