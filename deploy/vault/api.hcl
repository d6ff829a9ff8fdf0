# The API opens data keys, and signs access tokens and the audit log's checkpoints. It can't make, change, export or
# delete any key, nor encrypt.
# Its AppRole carries no default policy, so this file is all it may do.

path "transit/decrypt/t_*" {
  capabilities = ["update"]
}

path "transit/sign/coffer-access" {
  capabilities = ["update"]
}

path "transit/sign/coffer-audit" {
  capabilities = ["update"]
}

path "transit/keys/coffer-audit" {
  capabilities = ["read"]
}

path "transit/keys/coffer-access" {
  capabilities = ["read"]
}

path "transit/keys/coffer-backup" {
  capabilities = ["read"]
}
