# One node of the key store in production; add nodes to the raft cluster, and an auto-unseal that fits your platform.
storage "raft" {
  path    = "/openbao/file"
  node_id = "one"
}
listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/run/secrets/openbao_cert"
  tls_key_file  = "/run/secrets/openbao_key"
}
api_addr     = "https://openbao:8200"
cluster_addr = "https://openbao:8201"
ui           = false
