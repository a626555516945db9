package model

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// knownType is a type of device that every cloud knows.
type knownType struct {
	slug, name, arch string
	install          installation
}

// installation is how a host OS gets onto a type of device.
type installation string

const (
	onCard       installation = "card"     // it runs from an SD card
	byStick      installation = "stick"    // a USB key writes it to the disk inside
	byCard       installation = "card in"  // an SD card does
	overUSB      installation = "usb"      // a computer does, by rpiboot
	byFlashTool  installation = "tool"     // its maker's tool for boards of its kind does
	asVirtualOne installation = "emulated" // the image is the disk of a virtual machine
)

// catalogue is what a new cloud starts with; rows missing from an older database are
// added when it is opened.
func catalogue() (architectures []string, types []knownType) {
	architectures = []string{"rpi", "armv7hf", "aarch64", "i386-nlp", "i386", "amd64"}
	types = []knownType{
		{"generic-amd64", "Generic x86_64 (GPT)", "amd64", byStick},
		{"genericx86-64-ext", "Generic x86_64", "amd64", byStick},
		{"intel-nuc", "Intel NUC", "amd64", byStick},
		{"qemux86-64", "QEMU X86 64bit", "amd64", asVirtualOne},
		{"qemux86", "QEMU X86 32bit", "i386", asVirtualOne},
		{"generic-aarch64", "Generic AARCH64 (ARMv8)", "aarch64", byStick},
		{"generic-armv7ahf", "Generic ARMv7-a HF", "armv7hf", onCard},
		{"raspberry-pi", "Raspberry Pi (v1 / Zero / Zero W)", "rpi", onCard},
		{"raspberry-pi2", "Raspberry Pi 2", "armv7hf", onCard},
		{"raspberrypi3", "Raspberry Pi 3", "armv7hf", onCard},
		{"raspberrypi3-64", "Raspberry Pi 3 (using 64bit OS)", "aarch64", onCard},
		{"raspberrypi0-2w-64", "Raspberry Pi Zero 2 W (64bit)", "aarch64", onCard},
		{"raspberrypi4-64", "Raspberry Pi 4 (using 64bit OS)", "aarch64", onCard},
		{"raspberrypi400-64", "Raspberry Pi 400", "aarch64", onCard},
		{"raspberrypi5", "Raspberry Pi 5", "aarch64", onCard},
		{"revpi-core-3", "Revolution Pi Core 3", "armv7hf", overUSB},
		{"beaglebone-black", "BeagleBone Black", "armv7hf", byCard},
		{"jetson-nano", "Nvidia Jetson Nano SD-CARD", "aarch64", byFlashTool},
		{"jetson-xavier", "Nvidia Jetson AGX Xavier", "aarch64", byFlashTool},
		{"jetson-orin-nano-devkit-nvme", "Nvidia Jetson Orin Nano 8GB (SD) Devkit NVME", "aarch64", byFlashTool},
	}
	return architectures, types
}

// media are where a type boots from, as clients make sentences of it: from altBoot when
// the host OS is written inside from there.
type media struct {
	DefaultBoot string   `json:"defaultBoot"`
	AltBoot     []string `json:"altBoot,omitempty"`
}

// contract is the document that clients make instructions of. In its texts {{name}} is the
// name of the type.
func (k knownType) contract() ([]byte, error) {
	where, protocol, texts := k.installed()
	data := map[string]any{"arch": k.arch, "media": where}
	if protocol != "" {
		data["flashProtocol"] = protocol
	}
	partials := map[string][]string{}
	for name, text := range texts {
		partials[name] = []string{text}
	}
	b, err := json.Marshal(map[string]any{"slug": k.slug, "version": "1", "type": "hw.device-type", "name": k.name,
		"aliases": []string{k.slug}, "data": data, "partials": partials})
	if err != nil {
		return nil, fmt.Errorf("write contract of %s: %w", k.slug, err)
	}
	return b, nil
}

// installed is how clients tell the ways of installing apart, and what they need to know
// of the type to describe them.
func (k knownType) installed() (where media, protocol string, texts map[string]string) {
	const connect = "Connect the {{name}} to its power supply"
	switch k.install {
	case onCard:
		return media{DefaultBoot: "sdcard"}, "", map[string]string{"bootDevice": connect}
	case byStick:
		return media{"internal", []string{"usb_mass_storage"}}, "", map[string]string{
			"bootDeviceExternal": "Turn the {{name}} on. If it does not start from the USB key, choose the key in the boot menu of its firmware.",
			"flashIndicator":     "it has turned itself off",
			"bootDevice":         "Turn the {{name}} on again",
		}
	case byCard:
		return media{"internal", []string{"sdcard"}}, "", map[string]string{
			"bootDeviceExternal": "Hold the button down that has the {{name}} start from the card while you connect it to its power supply.",
			"flashIndicator":     "all its lights are off",
			"bootDevice":         "Disconnect the power supply and connect it again",
		}
	case overUSB:
		return media{DefaultBoot: "internal"}, "RPIBOOT", map[string]string{
			"connectDevice":    "Connect the USB port of the {{name}} that is for programming to the host machine and then the power supply, and run rpiboot on the host machine until the {{name}} shows up there as a disk.",
			"disconnectDevice": "Disconnect the {{name}} from the host machine and from its power supply.",
			"bootDevice":       connect + " again",
		}
	case byFlashTool:
		return media{DefaultBoot: "internal"}, "jetsonFlash", nil
	case asVirtualOne:
		return media{DefaultBoot: "image"}, "", map[string]string{
			"instructions": "Unpack the disk image that you downloaded, and start QEMU with it as the disk of the virtual machine.",
		}
	}
	return media{}, "", nil
}

// instructions say the same in whole sentences.
func (k knownType) instructions() []string {
	_, _, texts := k.installed()
	steps := map[installation][]string{
		onCard:       {"Write the disk image of the host OS to an SD card and put it into the {{name}}.", texts["bootDevice"] + "."},
		byStick:      {"Write the disk image of the host OS to a USB key and put it into the {{name}}.", texts["bootDeviceExternal"], "It erases the disk inside. Wait until " + texts["flashIndicator"] + ", and remove the key.", texts["bootDevice"] + "."},
		byCard:       {"Write the disk image of the host OS to an SD card and put it into the {{name}}.", texts["bootDeviceExternal"], "It erases the memory inside. Wait until " + texts["flashIndicator"] + ", and remove the card.", texts["bootDevice"] + "."},
		overUSB:      {texts["connectDevice"], "Write the disk image of the host OS to that disk.", texts["disconnectDevice"], texts["bootDevice"] + "."},
		byFlashTool:  {"Put the {{name}} into recovery mode, connect it to the host machine, and write the disk image of the host OS with the tool for Jetson boards."},
		asVirtualOne: {texts["instructions"]},
	}[k.install]
	for i := range steps {
		steps[i] = strings.ReplaceAll(steps[i], "{{name}}", k.name)
	}
	return steps
}

func (db *DB) seed(ctx context.Context) error {
	architectures, types := catalogue()
	return db.update(ctx, func(t *txn) error {
		for _, slug := range architectures {
			if _, err := t.ExecContext(ctx, `INSERT INTO cpu_architecture (created_at, slug) VALUES (?, ?) ON CONFLICT (slug) DO NOTHING`, millis(t.now), slug); err != nil {
				return err
			}
		}
		for _, k := range types {
			if err := t.seedType(ctx, k); err != nil {
				return err
			}
		}
		if _, err := t.ExecContext(ctx, `
			INSERT INTO application_type (created_at, slug, name, supports_multicontainer, needs__os_version_range)
			VALUES (?, 'default', 'Default', TRUE, '>=2.11.0') ON CONFLICT (slug) DO NOTHING`, millis(t.now)); err != nil {
			return err
		}
		// Clients look types up through their aliases only.
		_, err := t.ExecContext(ctx, `
			INSERT INTO device_type_alias (created_at, device_type, is_referenced_by__alias)
			SELECT CAST(? AS BIGINT), id, slug FROM device_type WHERE TRUE ON CONFLICT (is_referenced_by__alias) DO NOTHING`, millis(t.now))
		return err
	})
}

func (t *txn) seedType(ctx context.Context, k knownType) error {
	contract, err := k.contract()
	if err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, `
		INSERT INTO device_type (created_at, slug, name, is_of__cpu_architecture)
		VALUES (?, ?, ?, (SELECT id FROM cpu_architecture WHERE slug = ?)) ON CONFLICT (slug) DO NOTHING`,
		millis(t.now), k.slug, k.name, k.arch); err != nil {
		return err
	}
	_, err = t.ExecContext(ctx, `UPDATE device_type SET contract = CAST(? AS TEXT) WHERE slug = ? AND contract IS DISTINCT FROM CAST(? AS TEXT)`,
		string(contract), k.slug, string(contract))
	return err
}

// deviceType finds a device type by slug.
func (t *txn) deviceType(ctx context.Context, slug string) (int64, error) {
	var id int64
	err := t.QueryRowContext(ctx, `SELECT id FROM device_type WHERE slug = ?`, strings.ToLower(slug)).Scan(&id)
	return id, notFound(err, "device type %q", slug)
}
