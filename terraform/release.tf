# The release: the chart of this repository with what this module knows. tests/terraform checks these values against the chart's schema.

locals {
  release   = "souk"
  namespace = "souk"

  values = {
    environment = "production"
    image       = { repository = var.image.repository, digest = var.image.digest }
    databaseUrl = local.database_url
    redisHosts  = local.redis_hosts
    secrets = {
      database = local.secret_names.database
      redis    = local.secret_names.redis
      keys     = local.secret_names.keys
    }
    publicUrl   = "https://${var.host}"
    corsOrigins = var.cors_origins
    processor   = { url = var.processor_url }
    testing     = { processor = false, issuer = false }
    defaults    = { annotations = { "souk/secrets" = local.secrets_hash } }
    mesh = {
      gateway = {
        namespace      = kubernetes_namespace_v1.gateway.metadata[0].name
        serviceAccount = local.gateway_release
        selector       = local.gateway_selector
        tlsSecret      = local.tls_secret
      }
      issuer          = { url = var.issuer.url, jwksUri = var.issuer.jwks_uri, audience = var.issuer.audience }
      networkPolicies = { meshNamespace = local.istio_namespace }
    }
  }
}

resource "kubernetes_namespace_v1" "souk" {
  metadata {
    name = local.namespace
    labels = {
      istio-injection                      = "enabled"
      "pod-security.kubernetes.io/enforce" = "baseline"
      "pod-security.kubernetes.io/warn"    = "restricted"
    }
  }
  depends_on = [aws_eks_cluster.souk]
}

resource "helm_release" "souk" {
  name      = local.release
  chart     = "${path.module}/../helm/souk"
  namespace = kubernetes_namespace_v1.souk.metadata[0].name
  values    = [yamlencode(local.values), yamlencode(var.values)]
  # A release that does not become ready goes back to the one before.
  atomic  = true
  timeout = 900

  depends_on = [
    helm_release.gateway,
    kubernetes_job_v1.databases,
    kubernetes_secret_v1.souk,
    aws_vpc_security_group_ingress_rule.redis,
    aws_memorydb_cluster.souk,
  ]
}
