# Redis: MemoryDB, which keeps what it acknowledged in a log over several zones, and evicts nothing. It speaks the protocol of a Cluster, and TLS only.

resource "aws_memorydb_subnet_group" "souk" {
  name       = var.name
  subnet_ids = local.private_subnet_ids
  tags       = local.tags
}

resource "aws_memorydb_parameter_group" "souk" {
  name        = var.name
  family      = "memorydb_redis7"
  description = "What Souk counts on"
  tags        = local.tags

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_security_group" "redis" {
  name        = "${var.name}-redis"
  description = "Redis, for the cluster's nodes alone"
  vpc_id      = aws_vpc.souk.id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "redis" {
  security_group_id            = aws_security_group.redis.id
  description                  = "From the cluster"
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  referenced_security_group_id = aws_eks_cluster.souk.vpc_config[0].cluster_security_group_id
}

# Everything but what rules over the server: the marketplace asks for INFO and TIME, and changes no setting.
resource "aws_memorydb_user" "souk" {
  user_name     = var.name
  access_string = "on ~* &* +@all -@admin"
  tags          = local.tags

  authentication_mode {
    type      = "password"
    passwords = [random_password.redis.result]
  }
}

resource "aws_memorydb_acl" "souk" {
  name       = var.name
  user_names = [aws_memorydb_user.souk.user_name]
  tags       = local.tags
}

resource "aws_memorydb_cluster" "souk" {
  name                     = var.name
  engine                   = "redis"
  engine_version           = "7.1"
  node_type                = var.redis.node_type
  num_shards               = 1
  num_replicas_per_shard   = var.redis.replicas
  port                     = 6379
  tls_enabled              = true
  kms_key_arn              = aws_kms_key.souk.arn
  acl_name                 = aws_memorydb_acl.souk.name
  parameter_group_name     = aws_memorydb_parameter_group.souk.name
  subnet_group_name        = aws_memorydb_subnet_group.souk.name
  security_group_ids       = [aws_security_group.redis.id]
  snapshot_retention_limit = 3
  tags                     = local.tags
}

locals {
  # A client of a Cluster asks the first for the others, and then speaks with each: the mesh must know them all.
  redis_endpoint = aws_memorydb_cluster.souk.cluster_endpoint[0]
  redis_nodes    = flatten([for shard in aws_memorydb_cluster.souk.shards : [for node in shard.nodes : node.endpoint[0]]])
  redis_hosts    = distinct([for each in concat([local.redis_endpoint], local.redis_nodes) : "${each.address}:${each.port}"])
  redis_url      = "rediss+cluster://${aws_memorydb_user.souk.user_name}:${random_password.redis.result}@${local.redis_endpoint.address}:${local.redis_endpoint.port}"
}
