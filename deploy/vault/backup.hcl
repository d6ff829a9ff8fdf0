# Backups get fresh wrapped keys, one per backup and per key file, and can open none.

path "transit/datakey/wrapped/t_*" {
  capabilities = ["create", "update"]
}
