# The mesh: Istio by its own charts. Its CNI plugin spares injected pods the container that would need more rights.

locals {
  istio_charts     = "https://istio-release.storage.googleapis.com/charts"
  istio_namespace  = "istio-system"
  gateway_release  = "istio-ingressgateway"
  gateway_selector = { istio = "ingressgateway" }
  tls_secret       = "souk-tls"
}

resource "kubernetes_namespace_v1" "gateway" {
  metadata {
    name = "istio-ingress"
    labels = {
      istio-injection                      = "enabled"
      "pod-security.kubernetes.io/enforce" = "baseline"
    }
  }
}

resource "helm_release" "istio_base" {
  name             = "istio-base"
  repository       = local.istio_charts
  chart            = "base"
  version          = var.istio_version
  namespace        = local.istio_namespace
  create_namespace = true
  values           = [yamlencode({ defaultRevision = "default" })]
  depends_on       = [aws_eks_node_group.souk, aws_eks_addon.on_nodes]
}

resource "helm_release" "istio_cni" {
  name       = "istio-cni"
  repository = local.istio_charts
  chart      = "cni"
  version    = var.istio_version
  namespace  = local.istio_namespace
  depends_on = [helm_release.istio_base]
}

resource "helm_release" "istiod" {
  name       = "istiod"
  repository = local.istio_charts
  chart      = "istiod"
  version    = var.istio_version
  namespace  = local.istio_namespace
  values = [yamlencode({
    pilot = { cni = { enabled = true }, autoscaleMin = 2 }
    meshConfig = {
      accessLogFile = ""
      # The mesh makes up an address for every host outside it, so that proxies tell several on one port apart: the nodes of Redis.
      defaultConfig = { proxyMetadata = { ISTIO_META_DNS_CAPTURE = "true" } }
    }
  })]
  depends_on = [helm_release.istio_cni]
}

# Only nodes with one of its pods take calls, so the caller's address is not lost on the way between nodes.
resource "helm_release" "gateway" {
  name       = local.gateway_release
  repository = local.istio_charts
  chart      = "gateway"
  version    = var.istio_version
  namespace  = kubernetes_namespace_v1.gateway.metadata[0].name
  values = [yamlencode({
    autoscaling = { minReplicas = var.cluster.min_nodes, maxReplicas = var.cluster.max_nodes }
    service = {
      type                  = "NodePort"
      externalTrafficPolicy = "Local"
      ports = [
        { name = "http2", port = 80, protocol = "TCP", targetPort = 80, nodePort = local.node_ports.http },
        { name = "https", port = 443, protocol = "TCP", targetPort = 443, nodePort = local.node_ports.https },
      ]
    }
  })]
  depends_on = [helm_release.istiod]
}

resource "kubernetes_secret_v1" "certificate" {
  count = nonsensitive(var.certificate == null) ? 0 : 1

  type = "kubernetes.io/tls"
  data = {
    "tls.crt" = var.certificate.chain_pem
    "tls.key" = var.certificate.key_pem
  }
  metadata {
    name      = local.tls_secret
    namespace = kubernetes_namespace_v1.gateway.metadata[0].name
  }
}
