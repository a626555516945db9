// Package run is the loop around the planner: look at the device, plan, start
// what waits for nothing, look again as soon as anything ends or changes. It is
// the only place from which the device is changed.
//
// Nothing that matters lives in its memory: it may be killed between any two
// instructions and started again. What must be remembered (failures and their
// next try) goes to Memory.
package run
