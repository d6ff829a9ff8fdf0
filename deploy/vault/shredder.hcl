# Destroys a tenant's key, and with it all that was ever sealed for the tenant. No AppRole carries this policy: an operator
# makes a short token for one offboarding (bao token create -policy=coffer-shredder -no-default-policy -ttl=10m).

path "transit/keys/+" {
  capabilities = ["read", "delete"]
}

path "transit/keys/+/config" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "deletion_allowed" = []
  }
}

path "transit/keys/coffer-*" {
  capabilities = ["deny"]
}
