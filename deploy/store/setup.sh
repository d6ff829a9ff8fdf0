#!/bin/sh
# Prepares the store (MinIO): for audit checkpoints a bucket whose objects nobody may change or delete for a year, for
# backups six buckets, and a user who may list, write and read in all of them, and delete backups. Run it in the store's
# container, as often as you like:
#   docker compose exec -T store sh -s <deploy/store/setup.sh
# mc speaks to its own machine here, so the certificate's name need not be checked.
set -eu

. /run/secrets/store_env # AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…
MC_HOST_here="https://$(cat /run/secrets/store_user):$(cat /run/secrets/store_password)@127.0.0.1:9000"
export MC_HOST_here
mc() { command mc --insecure --quiet "$@"; }

mc mb --ignore-existing --with-lock here/coffer-audit
for number in 1 2 3 4 5 6; do
    mc mb --ignore-existing "here/coffer-backup-$number"
done
mc retention set --default COMPLIANCE 365d here/coffer-audit

policy=$(mktemp)
cat >"$policy" <<'POLICY'
{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::coffer-audit"]},
    {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::coffer-backup-*"]},
    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
     "Resource": ["arn:aws:s3:::coffer-backup-*/*"]},
    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": ["arn:aws:s3:::coffer-audit/*"]}
  ]
}
POLICY
mc admin policy create here coffer-audit "$policy"
rm -f "$policy"
printf '%s\n%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" | mc admin user add here
mc admin policy attach here coffer-audit --user "$AWS_ACCESS_KEY_ID" || echo "The user has this policy already."
