#!/bin/sh
# Prepares an OpenBao (or, with `ln -s vault bao`, a Vault) for Coffer; run it as often as you like.
# Needs the `bao` CLI, BAO_ADDR, and BAO_TOKEN of somebody who may mount engines and write policies.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

has() { # has secrets transit: whether something is mounted there
    bao "$1" list -format=json | grep -q "\"$2/\":"
}

has secrets transit || bao secrets enable transit
has auth approle || bao auth enable approle

for policy in api provisioner rotator backup shredder; do
    bao policy write "coffer-$policy" "$here/$policy.hcl"
done

# Tokens live an hour and are taken anew by login; secret ids live until they are destroyed, because a process logs in
# with the same one for as long as it runs. The shredder has no AppRole: see shredder.hcl.
for role in api provisioner rotator backup; do
    bao write "auth/approle/role/coffer-$role" \
        token_policies="coffer-$role" token_no_default_policy=true token_type=service \
        token_ttl=1h token_max_ttl=4h secret_id_ttl=0 secret_id_num_uses=0
done

# Sign access tokens, the audit log's checkpoints, and backups; the private halves never leave. Existing keys stay as they are.
for key in coffer-access coffer-audit coffer-backup; do
    bao write "transit/keys/$key" type=ed25519 exportable=false allow_plaintext_backup=false >/dev/null
done

# A misspelt key name must fail, not make a key. Servers that lack this setting refuse it.
bao write transit/config/keys disable_upsert=true 2>/dev/null ||
    echo "This server has no disable_upsert; the policies already keep Coffer from making keys by encrypting."

cat <<'HOW'

Ready. What each process logs in with, for example the API:
  bao read -field=role_id auth/approle/role/coffer-api/role-id
  bao write -force -field=secret_id auth/approle/role/coffer-api/secret-id
HOW
