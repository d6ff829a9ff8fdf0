# The provisioner makes a tenant's key and its first data keys, and can open neither.
#
# "transit/keys/t_*" would also match transit/keys/t_x/rotate, since a glob crosses slashes; "+" is exactly one segment.
# What it may make is pinned, and the names coffer-* are out of its reach.

path "transit/keys/+" {
  capabilities        = ["create", "update"]
  required_parameters = ["type", "derived"]
  allowed_parameters = {
    "type"                   = ["aes256-gcm96"]
    "derived"                = [true]
    "exportable"             = [false]
    "allow_plaintext_backup" = [false]
  }
}

path "transit/keys/coffer-*" {
  capabilities = ["deny"]
}

path "transit/datakey/wrapped/t_*" {
  capabilities = ["create", "update"]
}
