# A marketplace for everybody at api.shop.example. Copy this folder, change what is yours, and then:
#   terraform init && terraform apply -target=module.souk.aws_eks_node_group.souk && terraform apply
# The first apply makes the cluster, which the providers kubernetes and helm of the second one speak with.

terraform {
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.25.0"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "3.1.1"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "2.38.0"
    }
  }

  # The state has secrets in it: encrypted, and one apply at a time.
  backend "s3" {
    bucket       = "shop-terraform"
    key          = "souk.tfstate"
    region       = "eu-west-1"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = "eu-west-1"
}

locals {
  cluster = {
    host                   = module.souk.cluster_endpoint
    cluster_ca_certificate = base64decode(module.souk.cluster_certificate_authority)
    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = ["eks", "get-token", "--cluster-name", module.souk.cluster_name]
    }
  }
}

provider "kubernetes" {
  host                   = local.cluster.host
  cluster_ca_certificate = local.cluster.cluster_ca_certificate
  exec {
    api_version = local.cluster.exec.api_version
    command     = local.cluster.exec.command
    args        = local.cluster.exec.args
  }
}

provider "helm" {
  kubernetes = local.cluster
}

module "souk" {
  source = "../"

  host          = var.host
  image         = var.image
  issuer        = { url = "https://id.shop.example", jwks_uri = "https://id.shop.example/keys" }
  processor_url = "https://processor.shop.example/v1"
  cors_origins  = ["https://shop.example"]
  certificate   = { chain_pem = file("${path.module}/chain.pem"), key_pem = file("${path.module}/key.pem") }
  gateway_cidrs = ["0.0.0.0/0"]
  # The office, from where this is applied.
  admin_cidrs = ["203.0.113.0/24"]
  tags        = { team = "shop" }

  # Whom the processes themselves ask: who signs accounts in, and who takes payments, with a secret of yours for its token.
  values = {
    defaults = { env = { SOUK_ISSUER = "https://id.shop.example", SOUK_ISSUER_JWKS = "https://id.shop.example/keys" } }
    services = {
      payment = {
        env       = { SOUK_PROCESSOR = "https://processor.example" }
        secretEnv = { SOUK_PROCESSOR_TOKEN = { secret = "processor", key = "token" } }
      }
    }
    mesh = {
      egress = {
        issuer    = { host = "id.shop.example", port = 443, protocol = "TLS" }
        processor = { host = "processor.example", port = 443, protocol = "TLS", workloads = ["payment"] }
      }
    }
  }
}
