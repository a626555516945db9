// Package catalogue serves what clients ask a cloud about itself: device types,
// names of variables, addresses, and the config.json of new devices.
package catalogue
