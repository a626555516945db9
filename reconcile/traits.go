package reconcile

import "deckhand/state"

// Traits implements Step.
func (s Fetch) Traits() Traits {
	return Traits{Interruptible: true, Lane: Download, Uses: []Resource{image(s.Image)}}
}

// Traits implements Step.
func (s RemoveImage) Traits() Traits {
	t := Traits{}
	for _, r := range s.Refs {
		t.Uses = append(t.Uses, image(r))
	}
	return t
}

// Traits implements Step.
func (s CreateNetwork) Traits() Traits {
	return Traits{App: s.App.UUID, Uses: []Resource{network(s.App, s.Network.Name)}}
}

// Traits implements Step.
func (s RemoveNetwork) Traits() Traits {
	return Traits{App: s.App.UUID, Uses: []Resource{network(s.App, s.Name)}}
}

// Traits implements Step.
func (s CreateVolume) Traits() Traits {
	return Traits{App: s.App.UUID, Uses: []Resource{volume(s.App, s.Volume.Name)}}
}

// Traits implements Step.
func (s RemoveVolume) Traits() Traits {
	return Traits{App: s.App.UUID, Uses: []Resource{volume(s.App, s.Name)}}
}

// Traits implements Step.
func (s CreateAPINetwork) Traits() Traits { return Traits{Uses: []Resource{apiNetwork}} }

// Traits implements Step.
func (s WriteFiles) Traits() Traits {
	return Traits{App: s.App.UUID, Uses: []Resource{files(s.App, s.Service, s.Hash)}}
}

// Traits implements Step.
func (s RemoveFiles) Traits() Traits {
	return Traits{App: s.App.UUID, Uses: []Resource{files(s.App, s.Service, s.Hash)}}
}

// Traits implements Step.
func (s TakeLocks) Traits() Traits {
	return Traits{App: s.App.UUID, Interruptible: true, Uses: []Resource{locks(s.App)}}
}

// Traits implements Step.
func (s ReleaseLocks) Traits() Traits {
	return Traits{App: s.App.UUID, Uses: []Resource{locks(s.App)}}
}

// Traits implements Step.
func (s Handover) Traits() Traits {
	t := ofService(s.App, s.Service)
	t.Interruptible, t.Lane, t.Object = true, Wait, s.Container
	return t
}

// Traits implements Step.
func (s Fulfil) Traits() Traits { return Traits{App: s.App.UUID, Last: true} }

// Traits implements Step.
func (s RequireReboot) Traits() Traits { return ofService(s.App, s.Service) }

// Traits implements Step.
func (s Reboot) Traits() Traits { return Traits{Disruptive: true, Alone: true} }

// Traits implements Step.
func (s Create) Traits() Traits {
	t := Traits{App: s.App.UUID, Uses: []Resource{service(s.App, s.Service.Name), image(s.Service.Image)}}
	for _, n := range s.Service.Spec.AppNetworks() {
		t.Uses = append(t.Uses, network(s.App, n))
	}
	for _, v := range namedVolumes(s.Service.Spec) {
		t.Uses = append(t.Uses, volume(s.App, v))
	}
	if hash := state.FilesHash(s.Service.Spec.Files); hash != "" {
		t.Uses = append(t.Uses, files(s.App, s.Service.Name, hash))
	}
	if owner := s.Service.Spec.NetworkOwner(); owner != "" {
		t.Uses = append(t.Uses, service(s.App, owner))
	}
	if s.Service.Spec.UsesAPINetwork() {
		t.Uses = append(t.Uses, apiNetwork)
	}
	return t
}

// Traits implements Step.
func (s Start) Traits() Traits {
	t := ofService(s.App, s.Service)
	t.Object = s.Container
	if s.Joins != "" {
		t.Uses = append(t.Uses, service(s.App, s.Joins))
	}
	for _, p := range s.Needs {
		t.Uses = append(t.Uses, Resource("port "+p))
	}
	return t
}

// Traits implements Step.
func (s Await) Traits() Traits {
	t := ofService(s.App, s.Service)
	t.Interruptible, t.Lane, t.Object = true, Wait, s.Container
	return t
}

// Traits implements Step.
func (s Stop) Traits() Traits {
	t := ofService(s.App, s.Service)
	t.Disruptive = true
	t.Uses = append(t.Uses, locks(s.App))
	return t
}

// Traits implements Step.
func (s Remove) Traits() Traits { return ofService(s.App, s.Service) }

// Traits implements Step.
func (s Rename) Traits() Traits {
	t := ofService(s.App, s.Service)
	t.Uses = append(t.Uses, locks(s.App))
	return t
}

// Traits implements Step.
func (s Commit) Traits() Traits { return Traits{App: s.App.UUID, Last: true} }

func ofService(a App, name string) Traits {
	return Traits{App: a.UUID, Uses: []Resource{service(a, name)}}
}

// image uses the digest where there is one: the same image may have two names.
func image(ref string) Resource {
	if d := state.Digest(ref); d != "" {
		return Resource("image " + d)
	}
	return Resource("image " + ref)
}

const apiNetwork = Resource("API network")

func locks(a App) Resource { return Resource("locks " + a.UUID) }
func files(a App, service, hash string) Resource {
	return Resource("files " + a.UUID + "/" + service + " " + hash)
}
func service(a App, name string) Resource { return Resource("service " + a.UUID + "/" + name) }
func network(a App, name string) Resource { return Resource("network " + a.UUID + "/" + name) }
func volume(a App, name string) Resource  { return Resource("volume " + a.UUID + "/" + name) }

// namedVolumes lists the volumes of the app that a container mounts.
func namedVolumes(s state.Spec) []string {
	var out []string
	for _, m := range s.Mounts {
		if m.Type == "volume" && m.Source != "" && !m.External {
			out = append(out, m.Source)
		}
	}
	return out
}
