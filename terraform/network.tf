# A network of its own. Nodes, databases and Redis are in private subnets; public ones hold the load balancer and the way out.

data "aws_availability_zones" "here" {
  state = "available"
}

locals {
  tags = merge(var.tags, { "souk/installation" = var.name })
  # By the zone's place in the list, so that a key never depends on what only the cloud knows.
  zones = { for index in range(var.network.zones) : tostring(index) => {
    name         = data.aws_availability_zones.here.names[index]
    public_cidr  = cidrsubnet(var.network.cidr, 4, index)
    private_cidr = cidrsubnet(var.network.cidr, 4, index + 8)
  } }
  private_subnet_ids = [for subnet in aws_subnet.private : subnet.id]
}

resource "aws_vpc" "souk" {
  cidr_block           = var.network.cidr
  enable_dns_hostnames = true
  enable_dns_support   = true
  tags                 = merge(local.tags, { Name = var.name })
}

# The group that everything without a group of its own would be in: it lets nothing through.
resource "aws_default_security_group" "none" {
  vpc_id = aws_vpc.souk.id
  tags   = local.tags
}

resource "aws_subnet" "public" {
  for_each = local.zones

  vpc_id            = aws_vpc.souk.id
  availability_zone = each.value.name
  cidr_block        = each.value.public_cidr
  tags              = merge(local.tags, { Name = "${var.name}-public-${each.key}" })
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id            = aws_vpc.souk.id
  availability_zone = each.value.name
  cidr_block        = each.value.private_cidr
  tags              = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_internet_gateway" "out" {
  vpc_id = aws_vpc.souk.id
  tags   = local.tags
}

# One way out in each zone: a zone that fails takes no other's with it.
resource "aws_eip" "out" {
  for_each = local.zones

  domain     = "vpc"
  tags       = merge(local.tags, { Name = "${var.name}-out-${each.key}" })
  depends_on = [aws_internet_gateway.out]
}

resource "aws_nat_gateway" "out" {
  for_each = local.zones

  allocation_id = aws_eip.out[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.souk.id
  tags   = merge(local.tags, { Name = "${var.name}-public" })

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.out.id
  }
}

resource "aws_route_table_association" "public" {
  for_each = local.zones

  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "private" {
  for_each = local.zones

  vpc_id = aws_vpc.souk.id
  tags   = merge(local.tags, { Name = "${var.name}-private-${each.key}" })

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.out[each.key].id
  }
}

resource "aws_route_table_association" "private" {
  for_each = local.zones

  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

# Photos travel to the bucket and back inside the cloud's own network.
resource "aws_vpc_endpoint" "photos" {
  vpc_id          = aws_vpc.souk.id
  service_name    = "com.amazonaws.${aws_s3_bucket.photos.region}.s3"
  route_table_ids = [for table in aws_route_table.private : table.id]
  tags            = local.tags
}
