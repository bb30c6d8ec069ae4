# Who may do what in the cloud: the cluster, its nodes, and of the workloads catalog alone, for the photos. Pods get their identity by their
# ServiceAccount and short-lived; there is no key to lose.

locals {
  policy_arn = "arn:${data.aws_partition.here.partition}:iam::aws:policy"
  # The chart names its ServiceAccounts after the release and the service.
  photos_account = "${local.release}-catalog"
}

data "aws_iam_policy_document" "trust" {
  for_each = { cluster = "eks.amazonaws.com", node = "ec2.amazonaws.com", workload = "pods.eks.amazonaws.com" }

  statement {
    actions = each.key == "workload" ? ["sts:AssumeRole", "sts:TagSession"] : ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = [each.value]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name_prefix        = "${var.name}-cluster-"
  assume_role_policy = data.aws_iam_policy_document.trust["cluster"].json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "${local.policy_arn}/AmazonEKSClusterPolicy"
}

resource "aws_iam_role" "node" {
  name_prefix        = "${var.name}-node-"
  assume_role_policy = data.aws_iam_policy_document.trust["node"].json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"])

  role       = aws_iam_role.node.name
  policy_arn = "${local.policy_arn}/${each.key}"
}

resource "aws_iam_role" "photos" {
  name_prefix        = "${var.name}-photos-"
  assume_role_policy = data.aws_iam_policy_document.trust["workload"].json
  tags               = local.tags
}

data "aws_iam_policy_document" "photos" {
  statement {
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = ["${aws_s3_bucket.photos.arn}/*"]
  }
  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.photos.arn]
  }
  statement {
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.souk.arn]
  }
}

resource "aws_iam_role_policy" "photos" {
  name   = "photos"
  role   = aws_iam_role.photos.id
  policy = data.aws_iam_policy_document.photos.json
}

resource "aws_eks_pod_identity_association" "photos" {
  cluster_name    = aws_eks_cluster.souk.name
  namespace       = kubernetes_namespace_v1.souk.metadata[0].name
  service_account = local.photos_account
  role_arn        = aws_iam_role.photos.arn
  tags            = local.tags
}
