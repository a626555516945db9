package access

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"deckhand/test/golden"
)

const intro = `# Permissions

Who may do what with which rows through the API. This page is made from the table
in ` + "`cloud/access/table.go`" + `, by which the cloud decides; a test keeps them the same.

Whoever may not do something with a row gets the answer as if there were no such
row: reading leaves it out, changing and deleting change nothing. Who may do
something with no row of a resource, or creates one that would not be theirs, gets
401. A row that is created or changed must be one that its author may create or
change afterwards as well, and must not newly refer to what its author cannot read.

| role | is |
|---|---|
| guest | everybody, also with a credential that is not valid |
| user | a person: a session, or an API key of the user (` + "`named-user-api-key`" + `) |
| session | a user who logged in with the password; in addition to what users may. Keys that act as the user are made only with a session whose password was given in the last 20 minutes |
| device | a device, with its own key (` + "`device-api-key`" + `). It never changes ` + "`belongs_to__application`" + ` and ` + "`is_frozen`" + ` of itself; while it is frozen it has the rights of a guest |
| provisioning key | whoever has a key of a fleet that is in every image of it (` + "`provisioning-api-key`" + `); registers devices |
| VPN server | whoever has the key of ` + "`--vpn-key`" + ` (` + "`service.vpn`" + `): a server beside the cloud that devices connect to |

What guests may do, all may. *operate* is making a device restart, reboot, update
and the like; *tunnel* opens connections to it; *log* writes its log; *connect* tells
that it came to a VPN server, or left it. Columns that hold secrets (password hashes, hashes
of keys, what signs sessions) are not part of any resource.

`

// manual is the page about permissions.
func manual() string {
	var b strings.Builder
	b.WriteString(intro)
	b.WriteString("| resource | guests | users | sessions | devices | provisioning keys | VPN servers |\n|---|---|---|---|---|---|---|\n")
	used := map[string]bool{}
	for _, cells := range lines(table) {
		fmt.Fprintf(&b, "| `%s`", cells[0])
		for _, cell := range cells[1:7] {
			b.WriteString(" | " + spell(cell, used))
		}
		b.WriteString(" |\n")
	}
	b.WriteString("\n## Whose rows\n\n| | in the column of | rows |\n|---|---|---|\n")
	for _, column := range []struct {
		name string
		role Role
	}{{"guests", Guest}, {"users, sessions", User}, {"devices", Device}, {"provisioning keys", Provisioning}, {"VPN servers", VPN}} {
		all := sets(column.role)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if _, everybodys := sets(Guest)[name]; used[name] && (column.role == Guest || !everybodys) {
				fmt.Fprintf(&b, "| *%s* | %s | %s |\n", name, column.name, all[name].words)
			}
		}
	}
	return b.String()
}

// spell is "r public, cud ours" in words, and notes the sets.
func spell(cell string, used map[string]bool) string {
	var grants []string
	for grant := range strings.SplitSeq(cell, ",") {
		letters, rows, _ := strings.Cut(strings.TrimSpace(grant), " ")
		var verbs, names []string
		for _, letter := range letters {
			verbs = append(verbs, string(verbOf(letter)))
		}
		for name := range strings.SplitSeq(rows, "+") {
			used[name] = true
			names = append(names, "*"+name+"*")
		}
		if len(verbs) > 0 {
			grants = append(grants, strings.Join(verbs, ", ")+" "+strings.Join(names, " and "))
		}
	}
	return strings.Join(grants, "; ")
}

func TestTheManualIsTheTable(t *testing.T) {
	golden.File(t, "../../docs/permissions.md", manual())
}

// A mistake in the table would give rights to the wrong people.
func TestTheTable(t *testing.T) {
	names := Resources()
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("resources are not sorted, or twice: %v", names)
	}
	for _, cells := range lines(ways) {
		if !slices.Contains(names, cells[0]) {
			t.Errorf("%s has ways and no rights", cells[0])
		}
	}
}

// Guests change nothing, and provisioning keys register devices.
func TestWhoChangesNothing(t *testing.T) {
	for k, where := range rules().where {
		registers := k == key{Provisioning, "device", Create}
		if (k.role == Guest || k.role == Provisioning) && k.verb != Read && !registers {
			t.Errorf("%s may %s %s where %s", k.role, k.verb, k.resource, where)
		}
	}
}

func TestRows(t *testing.T) {
	if _, _, ok := Rows(Caller{Role: "king", ID: 1}, "device", Read); ok {
		t.Error("an unknown role has rights")
	}
	if _, _, ok := Rows(Caller{Role: User, ID: 1}, "password", Read); ok {
		t.Error("an unknown resource has rights")
	}
	where, args, ok := Rows(Caller{Role: Device, ID: 7}, "service_install", Create)
	if !ok || strings.Count(where, "?") != len(args) || args[0] != int64(7) {
		t.Errorf("%s with %v", where, args)
	}
}
