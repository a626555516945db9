package access

// table is everything that anybody may do with rows through the API.
//
// ways leads from a row to what it belongs to: "fleet=device
// belongs_to__application" means that the column device leads to a device and
// its column belongs_to__application to the fleet. The other columns are
// roles. A cell has grants: letters for verbs and whose rows. What a guest may
// do everybody may. "users" are sessions and keys of users, "sessions" have
// the rights in their column in addition.
//
//	c create  r read  u update  d delete
//	o operate: make a device do something, as restart or reboot
//	t tunnel: open connections to the device
//	l log: write its log
//
// Row sets are in sets.go. For a create and an update the new row must be in
// the set as well, and every row that it newly refers to must be one that the
// caller may read.
const table = `
resource                            | ways                                                                                                      | guests   | users                      | sessions | devices                           | provisioning
api_key                             | actor=is_of__actor                                                                                        |          | rud own                    |          |                                   |
application                         | fleet=id                                                                                                  | r public | r visible, cudot ours      |          | r reachable                       |
application_config_variable         | fleet=application                                                                                         |          | crud ours                  |          | r its-fleet                       |
application_environment_variable    | fleet=application                                                                                         |          | crud ours                  |          | r its-fleet                       |
application_profile                 | fleet=application                                                                                         |          | crud ours                  |          | r its-fleet                       |
application_tag                     | fleet=application                                                                                         |          | crud ours                  |          | r its-fleet                       |
application_type                    |                                                                                                           | r all    |                            |          |                                   |
build_environment_variable          | fleet=application                                                                                         |          | crud ours                  |          |                                   |
cpu_architecture                    |                                                                                                           | r all    |                            |          |                                   |
device                              | fleet=belongs_to__application device=id                                                                   |          | crudot ours                |          | ruol itself                       | c its-fleet
device_config_variable              | fleet=device belongs_to__application device=device                                                        |          | crud ours                  |          | cru itself                        |
device_environment_variable         | fleet=device belongs_to__application device=device                                                        |          | crud ours                  |          | crud itself                       |
device_family                       |                                                                                                           | r all    |                            |          |                                   |
device_manufacturer                 |                                                                                                           | r all    |                            |          |                                   |
device_service_environment_variable | fleet=service_install device belongs_to__application device=service_install device                        |          | crud ours                  |          | crud itself                       |
device_tag                          | fleet=device belongs_to__application device=device                                                        |          | crud ours                  |          | crud itself                       |
device_type                         |                                                                                                           | r all    |                            |          |                                   |
device_type_alias                   |                                                                                                           | r all    |                            |          |                                   |
image                               | fleet=is_a_build_of__service application image=id                                                         | r public | r visible, cud ours        |          | r reachable, r given              |
image__is_part_of__release          | fleet=is_part_of__release belongs_to__application release=is_part_of__release                             | r public | r visible, cud ours        |          | r reachable, r told               |
image_environment_variable          | fleet=release_image is_part_of__release belongs_to__application release=release_image is_part_of__release | r public | r visible, cud ours        |          | r reachable, r told               |
image_install                       | fleet=device belongs_to__application device=device                                                        |          | crud ours                  |          | cru itself                        |
image_label                         | fleet=release_image is_part_of__release belongs_to__application release=release_image is_part_of__release | r public | r visible, cud ours        |          | r reachable, r told               |
image_profile                       | fleet=release_image is_part_of__release belongs_to__application release=release_image is_part_of__release | r public | r visible, cud ours        |          | r reachable, r told               |
organization                        | organization=id                                                                                           |          | c all, rud member          |          |                                   |
organization_membership             | organization=is_member_of__organization                                                                   |          | c joined-before, rd member |          |                                   |
release                             | fleet=belongs_to__application release=id                                                                  | r public | r visible, cud ours        |          | r reachable, r told               |
release_asset                       | fleet=release belongs_to__application release=release                                                     | r public | r visible, cud ours        |          | r reachable, r told               |
release_tag                         | fleet=release belongs_to__application release=release                                                     | r public | r visible, cud ours        |          | r reachable, r told               |
service                             | fleet=application                                                                                         | r public | r visible, cud ours        |          | r reachable                       |
service_environment_variable        | fleet=service application                                                                                 |          | crud ours                  |          | r its-fleet                       |
service_install                     | fleet=device belongs_to__application device=device service=installs__service                              |          | crud ours                  |          | rud itself, c itself+its-services |
service_label                       | fleet=service application                                                                                 | r public | r visible, cud ours        |          | r reachable                       |
user                                | user=id                                                                                                   |          | r fellow                   | u myself |                                   |
user__has__public_key               | user=user                                                                                                 |          | crud myself                |          | r its-owners                      |
`
