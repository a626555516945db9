package supervisor

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"time"

	"deckhand/config"
	"deckhand/report"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/uplink"
	"deckhand/version"
)

// provision makes the device known to its cloud. It fails only when ctx ends.
func (s *Supervisor) provision(ctx context.Context, file *config.File) error {
	return uplink.Provision(ctx, uplink.ProvisionConfig{
		File: file, SupervisorVersion: version.Version, OSVersion: s.host.OSName, OSVariant: s.host.Variant(),
		MACAddress: report.MACAddresses("/sys/class/net"), DeviceType: s.deviceType(file.Values()), UserAgent: s.userAgent(),
		Timeout: s.patience(), Transport: s.transport,
		OnError: func(err error, next time.Duration) { s.cloudTrouble(err, next, "cannot register the device") },
	})
}

// introduce tells the cloud what only the device knows, before it is asked for a
// target: that would replace the release that came with the disk image, and take
// its settings away. It fails only when ctx ends.
func (s *Supervisor) introduce(ctx context.Context, client *uplink.Client, file *config.File) error {
	s.preloadOld(ctx, client)
	return uplink.Introduce(ctx, uplink.IntroduceConfig{
		Client: client, File: file, Memory: introduction{s.store}, Settings: s.ownSettings,
		OnError: func(err error, next time.Duration) {
			s.cloudTrouble(err, next, "cannot tell the cloud what came with the device")
		},
		OnNotice: func(err error) {
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Msg("the cloud does not take what came with the device")
		},
	})
}

func (s *Supervisor) cloudTrouble(err error, next time.Duration, what string) {
	s.setTrouble(err)
	s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Dur("next", next).Msg(what)
}

// leave forgets which cloud knows the device: the next one is told everything.
func (s *Supervisor) leave() {
	if err := s.store.Initial.Clear(); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot forget which cloud knew the device")
	}
}

// ownSettings are the settings of the device that are not the default: those in
// force, which may come from the disk image, and those of config.json.
func (s *Supervisor) ownSettings() map[string]string {
	in, _ := config.ReadSettings(s.device.target().Config) // said when the target arrived
	v := s.values()
	if in.PollInterval == 0 && v.PollInterval != defaultPoll {
		in.PollInterval = v.PollInterval
	}
	in.PersistentLogging = in.PersistentLogging || v.PersistentLogging
	own, usual := in.Variables(), config.DefaultSettings().Variables()
	maps.DeleteFunc(own, func(name, value string) bool { return usual[name] == value })
	// A device must not begin its life in a cloud out of that cloud's reach.
	for name, reachable := range map[string]bool{localModeVariable: false, vpnVariable: true} {
		if _, differs := own[name]; differs {
			own[name] = strconv.FormatBool(reachable)
		}
	}
	return own
}

const vpnVariable = "SUPERVISOR_VPN_CONTROL"

// introduction keeps in the store what the cloud is still to be told.
type introduction struct{ store *store.Store }

// Pin implements uplink.Introduction.
func (i introduction) Pin() (fleet int64, commit string, ok bool, err error) {
	pin, ok, err := i.store.Pins.Wanted()
	return pin.Fleet, pin.Commit, ok, err
}

// DropPin implements uplink.Introduction.
func (i introduction) DropPin() error { return i.store.Pins.Clear() }

// Told implements uplink.Introduction.
func (i introduction) Told() (string, error) { return i.store.Initial.Told() }

// KeepTold implements uplink.Introduction. Tags that another cloud has are news
// to this one.
func (i introduction) KeepTold(place string) error {
	return errors.Join(i.store.Tags.ForgetReported(), i.store.Initial.Put(place))
}
