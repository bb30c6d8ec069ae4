variable "name" {
  description = "What everything is called, and begins with, in the account: one installation each."
  type        = string
  default     = "souk"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "The name is 3 to 20 small letters, digits and dashes, and begins with a letter: clusters, databases and buckets take no other."
  }
}

variable "tags" {
  description = "Tags of everything that takes tags, beside the installation's name."
  type        = map(string)
  default     = {}
}

variable "image" {
  description = "The image that the Dockerfile of this repository makes, by its digest: a tag may be another image tomorrow."
  type = object({
    repository = string
    digest     = string
  })

  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image.digest))
    error_message = "The image's digest is sha256: and 64 hexadecimal digits, as the registry says after a push."
  }
}

variable "host" {
  description = "The host at which people reach the marketplace, such as api.shop.example: a CNAME of the output gateway_address."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.host))
    error_message = "The host is a name with a dot in it, without a scheme or a path: api.shop.example."
  }
}

variable "certificate" {
  description = "The certificate for the host with its chain, and its key, in PEM. Null: somebody else, such as cert-manager, puts them into the secret souk-tls in the namespace istio-ingress."
  type = object({
    chain_pem = string
    key_pem   = string
  })
  default   = null
  sensitive = true
}

variable "issuer" {
  description = "The OpenID provider that signs accounts in: its URL, where its keys are, and the audience of its tokens."
  type = object({
    url      = string
    jwks_uri = string
    audience = optional(string, "souk")
  })

  validation {
    condition     = alltrue([for url in [var.issuer.url, var.issuer.jwks_uri] : startswith(url, "https://")])
    error_message = "The issuer and its keys are reached by https://."
  }
}

variable "processor_url" {
  description = "Where the payment processor is, by the contract of docs/processor.md."
  type        = string

  validation {
    condition     = startswith(var.processor_url, "https://")
    error_message = "The processor is reached by https://."
  }
}

variable "cors_origins" {
  description = "Origins of web pages that may call, such as https://shop.example."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.cors_origins : can(regex("^https://[^/*]+$", origin))])
    error_message = "An origin is https:// and a host, without a path or a star."
  }
}

variable "gateway_cidrs" {
  description = "Who may reach the gateway's ports 80 and 443: a marketplace for everybody says 0.0.0.0/0 here. Empty: the load balancer is internal, and only the network of the installation reaches it."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.gateway_cidrs : can(cidrhost(cidr, 0))])
    error_message = "Each is a CIDR, such as 203.0.113.0/24."
  }
}

variable "admin_cidrs" {
  description = "Who may reach the cluster's API from outside the network, beside a valid identity. Empty: nobody."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.admin_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Each is a CIDR, such as 203.0.113.0/24, and none is everybody's: the cluster's API is not for the whole world."
  }
}

variable "network" {
  description = "The network's addresses (a /16 is cut into a public and a private /20 for each zone), and in how many zones it is."
  type = object({
    cidr  = optional(string, "10.40.0.0/16")
    zones = optional(number, 3)
  })
  default = {}

  validation {
    condition     = can(cidrsubnet(var.network.cidr, 4, 15)) && var.network.zones >= 2 && var.network.zones <= 4
    error_message = "The network is a CIDR of at least 16 parts, such as 10.40.0.0/16, in 2 to 4 zones."
  }
}

variable "cluster" {
  description = "Kubernetes: its version, and the nodes. Their number stays between the two unless something of yours, such as a cluster autoscaler, changes it."
  type = object({
    version        = optional(string, "1.34")
    instance_types = optional(list(string), ["m7i.xlarge"])
    min_nodes      = optional(number, 3)
    max_nodes      = optional(number, 9)
    disk_gib       = optional(number, 50)
  })
  default = {}

  validation {
    condition     = var.cluster.min_nodes >= 2 && var.cluster.max_nodes >= var.cluster.min_nodes
    error_message = "There are at least 2 nodes, so that one may fail, and max_nodes is not below min_nodes."
  }
}

variable "database" {
  description = "MySQL. max_connections must be more than 10 for each pod of a service with tables, as many pods as there may ever be, times the services."
  type = object({
    version         = optional(string, "8.4")
    instance_class  = optional(string, "db.r7g.large")
    storage_gib     = optional(number, 100)
    max_storage_gib = optional(number, 1000)
    max_connections = optional(number, 1000)
    backup_days     = optional(number, 14)
  })
  default = {}

  validation {
    condition     = startswith(var.database.version, "8.4")
    error_message = "The version is 8.4 or one of its minor ones: the parameter group is of that family."
  }
  validation {
    condition     = var.database.backup_days >= 1 && var.database.backup_days <= 35
    error_message = "Backups are kept for 1 to 35 days: without any there is no point to restore to."
  }
  validation {
    condition     = var.database.max_connections >= 200
    error_message = "Seven services of two pods want 140 connections, and an upgrade more for a while: max_connections is at least 200."
  }
}

variable "redis" {
  description = "Redis (MemoryDB): the node's type, and how many replicas stand by."
  type = object({
    node_type = optional(string, "db.r7g.large")
    replicas  = optional(number, 1)
  })
  default = {}

  validation {
    condition     = var.redis.replicas >= 1 && var.redis.replicas <= 5
    error_message = "There are 1 to 5 replicas: without one the loss of a node stops all events until a new one is there."
  }
}

variable "deletion_protection" {
  description = "Whether databases, cluster and load balancer refuse to be deleted, and the bucket while there are photos in it. False only to take an installation down, in an apply of its own."
  type        = bool
  default     = true
}

variable "istio_version" {
  description = "The version of Istio that is installed."
  type        = string
  default     = "1.31.1"

  validation {
    condition     = can(regex("^1\\.[0-9]+\\.[0-9]+$", var.istio_version))
    error_message = "The version is 1.minor.patch, as Istio's charts are numbered."
  }
}

variable "values" {
  description = "More values of the chart helm/souk, which win over those of this module; its values.schema.json says what there is."
  type        = any
  default     = {}
}
