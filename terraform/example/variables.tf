variable "host" {
  description = "The host at which people reach the marketplace."
  type        = string
  default     = "api.shop.example"
}

variable "image" {
  description = "The image and its digest: what the push of a build has printed."
  type = object({
    repository = string
    digest     = string
  })
}
