output "gateway_address" {
  description = "Where the gateway's load balancer is: make the host a CNAME of it."
  value       = aws_lb.gateway.dns_name
}

output "public_url" {
  description = "Where people reach the marketplace."
  value       = local.values.publicUrl
}

output "cluster_name" {
  description = "The cluster, for aws eks update-kubeconfig --name."
  value       = aws_eks_cluster.souk.name
}

output "cluster_endpoint" {
  description = "The cluster's API, for the providers kubernetes and helm."
  value       = aws_eks_cluster.souk.endpoint
}

output "cluster_certificate_authority" {
  description = "The CA of the cluster's API, in base64, for the same."
  value       = aws_eks_cluster.souk.certificate_authority[0].data
}

output "namespace" {
  description = "The namespace of the release."
  value       = kubernetes_namespace_v1.souk.metadata[0].name
}

output "release" {
  description = "The release: its name, its namespace and the chart's version."
  value       = { name = helm_release.souk.name, version = helm_release.souk.version, namespace = helm_release.souk.namespace }
}

output "values" {
  description = "The values that the release was installed with, without those of the variable values."
  value       = local.values
}

output "database_host" {
  description = "The host of MySQL, inside the network."
  value       = aws_db_instance.souk.address
}

output "admin_url" {
  description = "MySQL as its administrator, inside the network: for npm run databases, and for a restore."
  value       = local.admin_url
  sensitive   = true
}

output "redis_url" {
  description = "Redis, inside the network."
  value       = local.redis_url
  sensitive   = true
}

output "photos_bucket" {
  description = "The bucket for photos."
  value       = aws_s3_bucket.photos.bucket
}

output "photos_role_arn" {
  description = "The role that catalog's pods have, which may use the bucket."
  value       = aws_iam_role.photos.arn
}

output "secret_arns" {
  description = "The secrets in Secrets Manager, by name: database, redis, keys and admin."
  value       = { for name, secret in aws_secretsmanager_secret.souk : name => secret.arn }
}

output "key_arn" {
  description = "The key that everything at rest is encrypted with."
  value       = aws_kms_key.souk.arn
}
