# The rotator makes new versions of tenant keys, rewraps under them, and raises the lowest version that still opens.
# It can't decrypt, and can't allow deletion, export or plaintext backup.
#
# "+" is exactly one segment; a glob "transit/keys/t_*" would also reach trim and import. See provisioner.hcl.

path "transit/keys/+" {
  capabilities = ["read"]
}

path "transit/keys/+/rotate" {
  capabilities = ["create", "update"]
}

path "transit/keys/+/config" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
  }
}

path "transit/keys/coffer-*" {
  capabilities = ["deny"]
}

path "transit/rewrap/t_*" {
  capabilities = ["create", "update"]
}
