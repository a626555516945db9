//go:build engine && interop && linux

package clients

import (
	"strings"
	"testing"
)

// Variables of a fleet and of a device, for programs and for the supervisor.
func variables(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("varied")
	uuid := o.device(fleet, "d")
	o.says("env set COLOUR red --fleet " + fleet)
	o.says("env set COLOUR green --fleet " + fleet)
	o.says("env set SIZE large --device " + uuid[:7])
	o.says("env set BALENA_SUPERVISOR_POLL_INTERVAL 900000 --fleet " + fleet)
	o.says("env set BALENA_HOST_CONFIG_gpu_mem 16 --device " + uuid)
	o.says("env list --fleet "+fleet, "COLOUR green")
	o.says("env list --fleet "+fleet+" --config", "BALENA_SUPERVISOR_POLL_INTERVAL 900000")
	o.says("env list --device "+uuid, "COLOUR green", "SIZE large")

	ofFleet := o.with(o.lists("env list --fleet "+fleet), "name", "COLOUR").text("id")
	ofDevice := o.with(o.lists("env list --device "+uuid), "name", "SIZE").text("id")
	configOfFleet := o.with(o.lists("env list --config --fleet "+fleet), "name", "BALENA_SUPERVISOR_POLL_INTERVAL").text("id")
	configOfDevice := o.with(o.lists("env list --config --device "+uuid), "name", "BALENA_HOST_CONFIG_gpu_mem").text("id")
	o.says("env rename " + ofFleet + " blue")
	o.says("env rename " + ofDevice + " small --device")
	o.says("env rename " + configOfDevice + " 32 --device --config")
	o.says("env list --device "+uuid, "COLOUR blue", "SIZE small")
	o.says("env list --config --device "+uuid, "BALENA_HOST_CONFIG_gpu_mem 32")
	o.says("env rm " + ofFleet + " --yes")
	o.says("env rm " + ofDevice + " --device --yes")
	o.says("env rm " + configOfFleet + " --config --yes")
	o.says("env rm " + configOfDevice + " --config --device --yes")
	for _, line := range []string{"env list --device " + uuid, "env list --config --device " + uuid} {
		if rows := o.lists(line); len(rows) > 0 {
			t.Errorf("%s shows %v", line, rows)
		}
	}
}

// Variables of one service of a fleet, and of one device's service.
func serviceVariables(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("served")
	o.deploy(fleet, "one", map[string]string{"web": "one"})
	uuid := o.device(fleet, "e")
	o.says("env set MODE fast --service web --fleet " + fleet)
	o.says("env set MODE slow --service web --device " + uuid)
	o.says("env list --fleet "+fleet+" --service web", "MODE fast")
	o.says("env list --device "+uuid+" --service web", "MODE fast", "MODE slow")
	rows := o.lists("env list --device " + uuid + " --service web")
	o.says("env rename " + o.with(rows, "value", "fast").text("id") + " faster --service")
	o.says("env rename " + o.with(rows, "value", "slow").text("id") + " slower --service --device")
	o.says("env list --device "+uuid+" --service web", "MODE faster", "MODE slower")
	o.says("env rm " + o.with(rows, "value", "fast").text("id") + " --service --yes")
	o.says("env rm " + o.with(rows, "value", "slow").text("id") + " --service --device --yes")
	if rows := o.lists("env list --device " + uuid + " --service web"); len(rows) > 0 {
		t.Errorf("they are still there: %v", rows)
	}
}

// Tags of a fleet, a device and a release.
func tags(t *testing.T) {
	o := loggedIn(t)
	fleet := o.fleet("tagged")
	release := o.deploy(fleet, "one", map[string]string{"web": "one"})
	for _, of := range []string{"--fleet " + fleet, "--device " + o.device(fleet, "f"), "--release " + release} {
		o.says("tag set place attic " + of)
		o.says("tag set place 'first floor' " + of)
		o.says("tag set empty " + of)
		o.says("tag list "+of, "place first floor", "empty")
		o.says("tag rm place " + of)
		if said := o.says("tag list "+of, "empty"); strings.Contains(said, "place") {
			t.Errorf("the tag is still there: %s", said)
		}
	}
}
