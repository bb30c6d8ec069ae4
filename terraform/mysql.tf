# MySQL, in private subnets, over TLS only. Databases and users are made by databases.tf.

resource "aws_db_subnet_group" "souk" {
  name       = var.name
  subnet_ids = local.private_subnet_ids
  tags       = local.tags
}

# What docs/operations.md asks of a server. Sessions set READ COMMITTED by themselves; a binary log by statements would refuse it.
resource "aws_db_parameter_group" "souk" {
  name_prefix = "${var.name}-"
  family      = "mysql8.4"
  description = "What Souk counts on"
  tags        = local.tags

  dynamic "parameter" {
    for_each = {
      require_secure_transport       = "1"
      transaction_isolation          = "READ-COMMITTED"
      binlog_format                  = "ROW"
      sync_binlog                    = "1"
      innodb_flush_log_at_trx_commit = "1"
      max_connections                = tostring(var.database.max_connections)
      max_allowed_packet             = "67108864"
      character_set_server           = "utf8mb4"
      slow_query_log                 = "1"
    }
    content {
      name  = parameter.key
      value = parameter.value
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "mysql" {
  name        = "${var.name}-mysql"
  description = "MySQL, for the cluster's nodes alone"
  vpc_id      = aws_vpc.souk.id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "mysql" {
  security_group_id            = aws_security_group.mysql.id
  description                  = "From the cluster"
  ip_protocol                  = "tcp"
  from_port                    = 3306
  to_port                      = 3306
  referenced_security_group_id = aws_eks_cluster.souk.vpc_config[0].cluster_security_group_id
}

resource "aws_db_instance" "souk" {
  identifier     = var.name
  engine         = "mysql"
  engine_version = var.database.version
  instance_class = var.database.instance_class
  username       = "souk_admin"
  password       = random_password.admin.result

  storage_type          = "gp3"
  allocated_storage     = var.database.storage_gib
  max_allocated_storage = var.database.max_storage_gib
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.souk.arn

  multi_az               = true
  publicly_accessible    = false
  port                   = 3306
  db_subnet_group_name   = aws_db_subnet_group.souk.name
  vpc_security_group_ids = [aws_security_group.mysql.id]
  parameter_group_name   = aws_db_parameter_group.souk.name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period    = var.database.backup_days
  backup_window              = "02:00-03:00"
  maintenance_window         = "sun:03:30-sun:04:30"
  auto_minor_version_upgrade = true
  copy_tags_to_snapshot      = true
  delete_automated_backups   = false
  deletion_protection        = var.deletion_protection
  skip_final_snapshot        = false
  final_snapshot_identifier  = "${var.name}-last"

  enabled_cloudwatch_logs_exports = ["error", "slowquery"]
  performance_insights_enabled    = true
  performance_insights_kms_key_id = aws_kms_key.souk.arn
  tags                            = local.tags
}
