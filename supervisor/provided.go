package supervisor

import "deckhand/target"

// decoding says for which device a target document is read. Contracts are
// checked against what the device offers now, so an update of its OS counts from
// the next start on.
func (s *Supervisor) decoding(uuid string) target.Options {
	return target.Options{Device: uuid, Provided: &target.Provided{
		Supervisor:    target.SupervisorVersion,
		DeviceType:    s.deviceType(s.values()),
		Arch:          s.host.Arch,
		L4T:           s.host.L4T,
		OS:            s.host.OSID,
		OSVersion:     s.host.OSVersion,
		Kernel:        s.host.Kernel,
		KernelVersion: s.host.KernelVersion,
	}}
}
