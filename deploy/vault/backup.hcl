# Backups get fresh wrapped keys, one per backup and per key file, and can open none; their manifests are signed.

path "transit/datakey/wrapped/t_*" {
  capabilities = ["create", "update"]
}

path "transit/sign/coffer-backup" {
  capabilities = ["update"]
}
