# Kubernetes: EKS with a group of nodes, NetworkPolicies enforced, and an agent that gives pods the cloud's identities.

locals {
  # Of the gateway's Service, where the load balancer finds it on every node that has a pod of it.
  node_ports = { http = 30080, https = 30443 }
  addons = {
    vpc-cni                = jsonencode({ enableNetworkPolicy = "true" })
    kube-proxy             = null
    eks-pod-identity-agent = null
  }
  # These two run as pods, and so need nodes.
  addons_on_nodes = ["coredns", "metrics-server"]
}

resource "aws_eks_cluster" "souk" {
  name                          = var.name
  version                       = var.cluster.version
  role_arn                      = aws_iam_role.cluster.arn
  bootstrap_self_managed_addons = false
  deletion_protection           = var.deletion_protection
  enabled_cluster_log_types     = ["api", "audit", "authenticator"]
  tags                          = local.tags

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.souk.arn
    }
  }

  vpc_config {
    subnet_ids              = local.private_subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.admin_cidrs) > 0
    public_access_cidrs     = length(var.admin_cidrs) > 0 ? var.admin_cidrs : null
  }

  depends_on = [aws_iam_role_policy_attachment.cluster]
}

resource "aws_eks_addon" "souk" {
  for_each = local.addons

  cluster_name         = aws_eks_cluster.souk.name
  addon_name           = each.key
  configuration_values = each.value
  tags                 = local.tags
}

resource "aws_eks_addon" "on_nodes" {
  for_each = toset(local.addons_on_nodes)

  cluster_name = aws_eks_cluster.souk.name
  addon_name   = each.key
  tags         = local.tags
  depends_on   = [aws_eks_node_group.souk]
}

# Disks are encrypted, and a pod cannot ask the node's metadata for the node's identity: the answer goes one hop.
resource "aws_launch_template" "node" {
  name_prefix            = "${var.name}-node-"
  update_default_version = true
  tags                   = local.tags

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = var.cluster.disk_gib
      encrypted             = true
      kms_key_id            = aws_kms_key.souk.arn
      delete_on_termination = true
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
}

resource "aws_eks_node_group" "souk" {
  cluster_name    = aws_eks_cluster.souk.name
  node_group_name = "${var.name}-general"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = local.private_subnet_ids
  instance_types  = var.cluster.instance_types
  tags            = local.tags

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  scaling_config {
    desired_size = var.cluster.min_nodes
    min_size     = var.cluster.min_nodes
    max_size     = var.cluster.max_nodes
  }

  update_config {
    max_unavailable = 1
  }

  depends_on = [aws_eks_addon.souk, aws_iam_role_policy_attachment.node]

  lifecycle {
    # Whoever scales the cluster decides.
    ignore_changes = [scaling_config[0].desired_size]
  }
}
