package access

// table is everything that anybody may do with rows through the API. The columns
// are roles, a cell has letters for verbs and whose rows. What guests may do
// everybody may. "users" are sessions and keys of users; sessions have the rights
// in their column in addition.
//
//	c create  r read  u update  d delete
//	o operate: make a device do something, as restart or reboot
//	t tunnel: open connections to the device
//	l log: write its log
//	n connect: tell that the device came to a VPN server, or left it
//
// Row sets are in sets.go; "a+b" are rows that are in both. For a create and an
// update the new row must be in the set as well, and every row that it newly
// refers to must be one that the caller may read.
const table = `
resource                            | guests   | users                      | sessions | devices                           | provisioning | VPN servers
api_key                             |          | rud own                    |          |                                   |
application                         | r public | r visible, cudot ours      |          | r reachable                       |
application_config_variable         |          | crud ours                  |          | r its-fleet                       |
application_environment_variable    |          | crud ours                  |          | r its-fleet                       |
application_profile                 |          | crud ours                  |          | r its-fleet                       |
application_tag                     |          | crud ours                  |          | r its-fleet                       |
application_type                    | r all    |                            |          |                                   |
build_environment_variable          |          | crud ours                  |          |                                   |
cpu_architecture                    | r all    |                            |          |                                   |
device                              |          | crudot ours                |          | ruol itself                       | c its-fleet  | n all
device_config_variable              |          | crud ours                  |          | cru itself                        |
device_environment_variable         |          | crud ours                  |          | crud itself                       |
device_family                       | r all    |                            |          |                                   |
device_manufacturer                 | r all    |                            |          |                                   |
device_service_environment_variable |          | crud ours                  |          | crud itself                       |
device_tag                          |          | crud ours                  |          | crud itself                       |
device_type                         | r all    |                            |          |                                   |
device_type_alias                   | r all    |                            |          |                                   |
image                               | r public | r visible, cud ours        |          | r reachable, r given              |
image__is_part_of__release          | r public | r visible, cud ours        |          | r reachable, r told               |
image_environment_variable          | r public | r visible, cud ours        |          | r reachable, r told               |
image_install                       |          | crud ours                  |          | cru itself                        |
image_label                         | r public | r visible, cud ours        |          | r reachable, r told               |
image_profile                       | r public | r visible, cud ours        |          | r reachable, r told               |
organization                        |          | c all, rud member          |          |                                   |
organization_membership             |          | c joined-before, rd member |          |                                   |
release                             | r public | r visible, cud ours        |          | r reachable, r told               |
release_asset                       | r public | r visible, cud ours        |          | r reachable, r told               |
release_tag                         | r public | r visible, cud ours        |          | r reachable, r told               |
service                             | r public | r visible, cud ours        |          | r reachable                       |
service_environment_variable        |          | crud ours                  |          | r its-fleet                       |
service_install                     |          | crud ours                  |          | rud itself, c itself+its-services |
service_instance                    |          |                            |          |                                   |              | cru all
service_label                       | r public | r visible, cud ours        |          | r reachable                       |
user                                |          | r fellow                   | u myself |                                   |
user__has__public_key               |          | crud myself                |          | r its-owners                      |
`

// ways lead from a row to what it belongs to: "fleet=device
// belongs_to__application" means that the column device leads to a device and its
// column belongs_to__application to the fleet.
const ways = `
resource                            | ways
api_key                             | actor=is_of__actor
application                         | fleet=id
application_config_variable         | fleet=application
application_environment_variable    | fleet=application
application_profile                 | fleet=application
application_tag                     | fleet=application
build_environment_variable          | fleet=application
device                              | fleet=belongs_to__application device=id
device_config_variable              | fleet=device belongs_to__application device=device
device_environment_variable         | fleet=device belongs_to__application device=device
device_service_environment_variable | fleet=service_install device belongs_to__application device=service_install device
device_tag                          | fleet=device belongs_to__application device=device
image                               | fleet=is_a_build_of__service application image=id
image__is_part_of__release          | fleet=is_part_of__release belongs_to__application release=is_part_of__release
image_environment_variable          | fleet=release_image is_part_of__release belongs_to__application release=release_image is_part_of__release
image_install                       | fleet=device belongs_to__application device=device
image_label                         | fleet=release_image is_part_of__release belongs_to__application release=release_image is_part_of__release
image_profile                       | fleet=release_image is_part_of__release belongs_to__application release=release_image is_part_of__release
organization                        | organization=id
organization_membership             | organization=is_member_of__organization
release                             | fleet=belongs_to__application release=id
release_asset                       | fleet=release belongs_to__application release=release
release_tag                         | fleet=release belongs_to__application release=release
service                             | fleet=application
service_environment_variable        | fleet=service application
service_install                     | fleet=device belongs_to__application device=device service=installs__service
service_label                       | fleet=service application
user                                | user=id
user__has__public_key               | user=user
`
