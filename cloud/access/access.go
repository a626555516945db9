// Package access says who may do what with which rows: one table for all
// resources. It knows nothing of HTTP or of a database; conditions are SQL over
// the alias t, in which each ? is the caller's id.
package access

// Role is what a caller is, and so what it may do.
type Role string

// The roles. The first is everybody without a valid credential.
const (
	Guest        Role = "guest"
	User         Role = "user"                 // a session
	UserKey      Role = "named-user-api-key"   // what the user may, but no new keys
	Device       Role = "device-api-key"       // itself
	Provisioning Role = "provisioning-api-key" // registers devices of one fleet
	VPN          Role = "service.vpn"          // a VPN server: says who is connected
)

// Verb is what is done to rows.
type Verb string

// The verbs.
const (
	Read   Verb = "read"
	Create Verb = "create"
	Update Verb = "update"
	Delete Verb = "delete"
	// Operate is making a device do something: restart, reboot, stop a service.
	Operate Verb = "operate"
	// Tunnel is opening connections to a device.
	Tunnel Verb = "tunnel"
	// Log is writing the log of a device.
	Log Verb = "log"
	// Connect is telling that a device came to a VPN server, or left it.
	Connect Verb = "connect"
)

// Caller is who asks.
type Caller struct {
	Role  Role
	ID    int64  // of the user, device or fleet; 0: guest
	Actor int64  // its row in the actor table; 0: guest
	Name  string // user name, device uuid or fleet slug, for the audit log
}
