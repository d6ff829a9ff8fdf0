#!/bin/sh
# Makes what docker-compose.yml mounts: a CA, certificates, passwords and the URLs that hold them, in ./secrets.
#   sh deploy/secrets.sh [folder]
# Needs openssl. What is there already stays as it is, so run it as often as you like; remove a certificate and run it
# again to renew it (they live two years, the CA ten). The folder is for its owner alone. The files in it may be read by
# all, because the containers that they are mounted into run as users of their own; ca.key is mounted nowhere: once all
# is up, keep it elsewhere. The ids of the key store's roles come later: README, "Run it in production".
set -eu

folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"
umask 022
echo '*' >.gitignore

has() { [ -s "$1" ]; }

keep() { # keep NAME: standard input becomes this file, at once or not at all
    cat >"$1.unfinished"
    chmod 444 "$1.unfinished"
    mv -f "$1.unfinished" "$1"
}

password() { # password NAME: URLs may hold it as it is
    has "$1" || openssl rand -hex 24 | keep "$1"
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256; }

if ! has ca.pem; then
    (umask 077 && new_key >ca.key)
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=Coffer CA" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" | keep ca.pem
fi

for name in postgres rabbitmq openbao store; do
    has "$name.pem" && has "$name.key" && continue
    new_key | keep "$name.key"
    cat >"$name.ext.unfinished" <<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=DNS:$name,DNS:localhost,IP:127.0.0.1
EXTENSIONS
    openssl req -new -key "$name.key" -subj "/CN=$name" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -sha256 -days 730 \
            -extfile "$name.ext.unfinished" 2>/dev/null | keep "$name.pem"
    rm -f "$name.ext.unfinished"
done

password postgres_password
for role in owner app platform recorder; do
    password "${role}_password"
    url=database_url
    [ "$role" = app ] || url="${role}_database_url"
    has "$url" ||
        echo "postgresql://coffer_$role:$(cat "${role}_password")@postgres:5432/coffer?sslmode=verify-full" | keep "$url"
done

if ! has rabbitmq_user || ! has broker_url; then
    word=$(openssl rand -hex 24)
    printf 'default_user = coffer\ndefault_pass = %s\n' "$word" | keep rabbitmq_user
    echo "amqps://coffer:$word@rabbitmq:5671/" | keep broker_url
fi

# The store's own administrator, and the user that Coffer writes checkpoints as: deploy/store/setup.sh.
has store_user || echo coffer-admin | keep store_user
password store_password
has store.env ||
    printf 'AWS_ACCESS_KEY_ID=coffer\nAWS_SECRET_ACCESS_KEY=%s\n' "$(openssl rand -hex 20)" | keep store.env

echo "Ready: $(pwd)"
