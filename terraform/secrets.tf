# Every secret is made here, kept in Secrets Manager, and put into the cluster under the names and keys that the chart reads. What is made is in
# Terraform's state, too: keep that encrypted, as the example does. To change one: terraform apply -replace=<its random_password or tls_private_key>.

locals {
  # The services that have tables.
  services = toset(["account", "catalog", "inventory", "order", "payment", "search"])

  secrets = {
    database = { for service, password in random_password.database : service => password.result }
    redis    = { url = local.redis_url }
    keys = {
      "accounts.pem"    = tls_private_key.signing["accounts"].private_key_pem_pkcs8
      "services.pem"    = tls_private_key.signing["services"].private_key_pem_pkcs8
      "page-tokens.key" = random_password.page_tokens.result
    }
    admin = { url = local.admin_url }
  }
  secret_names = { for each in ["database", "redis", "keys", "admin"] : each => "souk-${each}" }
  # Pods start anew when a secret of theirs has changed. What stands in their annotation says nothing of it.
  secrets_hash = nonsensitive(sha256(jsonencode(local.secrets)))
}

# They stand in URLs: letters and digits only, which at this length is enough.
resource "random_password" "database" {
  for_each = local.services

  length  = 40
  special = false
}

resource "random_password" "admin" {
  length  = 40
  special = false
}

resource "random_password" "redis" {
  length  = 64
  special = false
}

# 43 of 62 characters are 256 bits.
resource "random_password" "page_tokens" {
  length  = 43
  special = false
}

# ES256: who has one of these can sign as any account, or as any service.
resource "tls_private_key" "signing" {
  for_each = toset(["accounts", "services"])

  algorithm   = "ECDSA"
  ecdsa_curve = "P256"
}

resource "aws_secretsmanager_secret" "souk" {
  for_each = local.secret_names

  name                    = "${var.name}/${each.key}"
  description             = "What ${each.value} holds in the cluster"
  kms_key_id              = aws_kms_key.souk.arn
  recovery_window_in_days = 30
  tags                    = local.tags
}

resource "aws_secretsmanager_secret_version" "souk" {
  for_each = local.secret_names

  secret_id     = aws_secretsmanager_secret.souk[each.key].id
  secret_string = jsonencode(local.secrets[each.key])
}

resource "kubernetes_secret_v1" "souk" {
  for_each = local.secret_names

  data = local.secrets[each.key]
  metadata {
    name      = each.value
    namespace = kubernetes_namespace_v1.souk.metadata[0].name
  }
}
