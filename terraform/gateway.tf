# The way in: a network load balancer before Istio's gateway. It is here and not made by a controller in the cluster, so that who may come in is seen here,
# and nothing is left behind that would keep the network from being deleted.

locals {
  is_public = length(var.gateway_cidrs) > 0
  ports     = { http = 80, https = 443 }
  # Each port for each of those who may come in.
  doors = { for door in setproduct(keys(local.ports), local.is_public ? var.gateway_cidrs : [var.network.cidr]) :
    "${door[0]} ${door[1]}" => { port = local.ports[door[0]], cidr = door[1] }
  }
}

resource "aws_security_group" "gateway" {
  name        = "${var.name}-gateway"
  description = "The load balancer before the gateway"
  vpc_id      = aws_vpc.souk.id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "gateway" {
  for_each = local.doors

  security_group_id = aws_security_group.gateway.id
  description       = "Callers of the marketplace"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.cidr
}

resource "aws_vpc_security_group_egress_rule" "gateway" {
  for_each = local.node_ports

  security_group_id            = aws_security_group.gateway.id
  description                  = "The gateway's pods"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_eks_cluster.souk.vpc_config[0].cluster_security_group_id
}

resource "aws_vpc_security_group_ingress_rule" "nodes" {
  for_each = local.node_ports

  security_group_id            = aws_eks_cluster.souk.vpc_config[0].cluster_security_group_id
  description                  = "From the load balancer"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_security_group.gateway.id
}

resource "aws_lb" "gateway" {
  name                             = var.name
  load_balancer_type               = "network"
  internal                         = !local.is_public
  subnets                          = local.is_public ? [for subnet in aws_subnet.public : subnet.id] : local.private_subnet_ids
  security_groups                  = [aws_security_group.gateway.id]
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
  tags                             = local.tags
}

# The caller's address is kept: rates are counted by it. Only nodes with a pod of the gateway are healthy.
resource "aws_lb_target_group" "gateway" {
  for_each = local.node_ports

  name                 = "${var.name}-${each.key}"
  vpc_id               = aws_vpc.souk.id
  target_type          = "instance"
  protocol             = "TCP"
  port                 = each.value
  preserve_client_ip   = "true"
  deregistration_delay = "60"
  tags                 = local.tags

  health_check {
    protocol = "TCP"
  }
}

resource "aws_lb_listener" "gateway" {
  for_each = local.ports

  load_balancer_arn = aws_lb.gateway.arn
  protocol          = "TCP"
  port              = each.value
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.gateway[each.key].arn
  }
}

resource "aws_autoscaling_attachment" "gateway" {
  for_each = local.node_ports

  autoscaling_group_name = aws_eks_node_group.souk.resources[0].autoscaling_groups[0].name
  lb_target_group_arn    = aws_lb_target_group.gateway[each.key].arn
}
