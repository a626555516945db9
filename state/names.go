package state

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Names and labels of balena's devices. A device moves between supervisors
// without losing a container because both read and write these.
const (
	LabelSupervised  = "io.balena.supervised"
	LabelAppID       = "io.balena.app-id"
	LabelAppUUID     = "io.balena.app-uuid"
	LabelServiceID   = "io.balena.service-id"
	LabelServiceName = "io.balena.service-name"

	// LabelSpec holds the hash of the spec an object was made with. It is ours.
	LabelSpec = "io.deckhand.spec"
	// LabelProject marks objects of "deckhand apply"; the supervisor proper
	// leaves them alone. It is ours.
	LabelProject = "io.deckhand.project"
)

// The network on which services reach the supervisor: its name on the host, its
// addresses, and ours on it. Users' firewalls and programs name them.
const (
	APINetworkName    = "supervisor0"
	APINetworkSubnet  = "10.114.104.0/25"
	APINetworkGateway = "10.114.104.1"
)

// ContainerName is <service>_<imageId>_<releaseId>_<commit>. The name is the
// only part of a container that can change without a restart, so the release
// is written there and in no label.
func ContainerName(service string, imageID, releaseID int64, commit string) string {
	return fmt.Sprintf("%s_%d_%d_%s", service, imageID, releaseID, commit)
}

var containerName = regexp.MustCompile(`^.*_(\d+)_(\d+)(?:_(.*))?$`)

// ParseContainerName reads the IDs and the commit back; ok is false when the
// name has another form.
func ParseContainerName(name string) (imageID, releaseID int64, commit string, ok bool) {
	m := containerName.FindStringSubmatch(strings.TrimPrefix(name, "/"))
	if m == nil {
		return 0, 0, "", false
	}
	imageID, err1 := strconv.ParseInt(m[1], 10, 64)
	releaseID, err2 := strconv.ParseInt(m[2], 10, 64)
	return imageID, releaseID, m[3], err1 == nil && err2 == nil
}

// NetworkName is the engine's name of an app's network: <appUuid>_<name>.
func NetworkName(appUUID, name string) string { return appUUID + "_" + name }

// VolumeName is the engine's name of an app's volume: <appId>_<name>.
func VolumeName(appID int64, name string) string { return fmt.Sprintf("%d_%s", appID, name) }

// FilesDir is where the files of a service are, below the run folder. Each
// content has a folder of its own: old and new containers do not share files.
func FilesDir(appID int64, service, hash string) string {
	return fmt.Sprintf("files/%d/%s/%s", appID, service, strings.ReplaceAll(hash, ":", "-"))
}

// FileName is the name of the nth file of a service, counted from 0 in the order
// of Spec.Files.
func FileName(n int) string { return strconv.Itoa(n) }
