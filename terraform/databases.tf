# One database and one user for each service, none with rights in another's: a job in the cluster makes them, for nobody outside reaches MySQL. It is the
# tool behind `npm run databases`, and runs again whenever a password, the server or the image has changed.

locals {
  # With the CAs of Amazon's databases, which no system trusts by itself; the certificate must be of this host.
  database_query = "?tls=amazon-rds"
  database_url   = "mysql://souk_{service}:$(PASSWORD)@${aws_db_instance.souk.address}:${aws_db_instance.souk.port}/souk_{service}${local.database_query}"
  admin_url      = "mysql://${aws_db_instance.souk.username}:${random_password.admin.result}@${aws_db_instance.souk.address}:${aws_db_instance.souk.port}${local.database_query}"
  image          = "${var.image.repository}@${var.image.digest}"
}

resource "kubernetes_job_v1" "databases" {
  wait_for_completion = true

  metadata {
    name      = "souk-databases-${substr(sha256("${local.image} ${local.secrets_hash}"), 0, 10)}"
    namespace = kubernetes_namespace_v1.souk.metadata[0].name
  }

  spec {
    backoff_limit           = 5
    active_deadline_seconds = 600

    template {
      metadata {
        # A proxy would outlive the job, and the server is outside the mesh.
        labels = { "app.kubernetes.io/name" = "databases", "sidecar.istio.io/inject" = "false" }
      }

      spec {
        restart_policy                  = "Never"
        automount_service_account_token = false
        enable_service_links            = false

        security_context {
          run_as_non_root = true
          run_as_user     = 1000
          seccomp_profile {
            type = "RuntimeDefault"
          }
        }

        container {
          name  = "databases"
          image = local.image
          args  = ["tools/databases.ts", "--passwords", "/etc/souk/passwords"]

          env {
            name = "SOUK_ADMIN_URL"
            value_from {
              secret_key_ref {
                name = kubernetes_secret_v1.souk["admin"].metadata[0].name
                key  = "url"
              }
            }
          }

          security_context {
            allow_privilege_escalation = false
            read_only_root_filesystem  = true
            run_as_non_root            = true
            capabilities {
              drop = ["ALL"]
            }
          }

          resources {
            requests = { cpu = "50m", memory = "128Mi" }
            limits   = { memory = "256Mi" }
          }

          volume_mount {
            name       = "passwords"
            mount_path = "/etc/souk/passwords"
            read_only  = true
          }
        }

        volume {
          name = "passwords"
          secret {
            secret_name = kubernetes_secret_v1.souk["database"].metadata[0].name
          }
        }
      }
    }
  }

  timeouts {
    create = "15m"
    update = "15m"
  }

  depends_on = [aws_eks_node_group.souk, aws_eks_addon.on_nodes]
}
